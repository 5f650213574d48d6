// Uncompressed DICOM stills as a person sees them, as readers/dicom/display.py and calibration.py do it.

const SYNTAXES = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"];
const TISSUE = 1, CENTIMETRES = 3;

let loading = null;

/** Loads dicom-parser, which is no module, when the first DICOM file comes. */
function loadParser() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "vendor/dicomParser.min.js";
    script.onload = () => resolve(window.dicomParser);
    script.onerror = () => reject(new Error("dicom-parser could not be loaded"));
    document.head.append(script);
  });
  return loading;
}

/**
 * Reads a file.
 *
 * Returns { rows, columns, rgba, spacing: null or [row mm, column mm], tissue: null or boxes, modality }; only in the
 * boxes is an ultrasound calibrated.
 */
export async function readDicom(bytes, site, refuse) {
  const parser = await loadParser();
  const parse = (name) => {
    try {
      return parser[name](bytes);
    } catch {
      throw refuse("its DICOM header is damaged or cut off");
    }
  };
  const syntax = parse("readPart10Header").string("x00020010") ?? "of unknown encoding";
  if (!SYNTAXES.includes(syntax)) throw refuse(`compressed DICOM (${syntax}) is not read in a browser; use mobileutr predict`);
  const data = parse("parseDicom");
  const needed = { x00280010: "Rows", x00280011: "Columns", x00280100: "BitsAllocated", x00280004: "PhotometricInterpretation" };
  for (const [tag, name] of Object.entries(needed)) if (!data.elements[tag]?.length) throw refuse(`it has no ${name}`);
  const about = {
    rows: data.uint16("x00280010"),
    columns: data.uint16("x00280011"),
    samples: data.uint16("x00280002") ?? 1,
    allocated: data.uint16("x00280100"),
    stored: data.uint16("x00280101") ?? data.uint16("x00280100"),
    signed: data.uint16("x00280103") === 1,
    planar: data.uint16("x00280006") === 1,
    photometric: data.string("x00280004"),
    modality: data.string("x00080060") ?? "",
  };
  about.highBit = data.uint16("x00280102") ?? about.stored - 1;
  refuseUnsupported(data, about, site, refuse);
  const element = data.elements.x7fe00010;
  const count = about.rows * about.columns * about.samples;
  if (!element || element.length < (count * about.allocated) / 8) throw refuse("its pixels are missing or cut off");
  const stored = readSamples(bytes, element.dataOffset, count, about);
  const rgba = about.samples === 3 ? showColours(stored, about) : showGrey(stored, data, about, site);
  return { rows: about.rows, columns: about.columns, rgba, ...readScale(data, about, site), modality: about.modality };
}

function refuseUnsupported(data, about, site, refuse) {
  const frames = Number(data.string("x00280008") ?? 1);
  if (frames !== 1) throw refuse(`it has ${frames} frames; mobileutr predict reads cines and volumes`);
  if (data.elements.x52009229 || data.elements.x52009230)
    throw refuse("enhanced DICOM is not read in a browser; use mobileutr predict");
  if (about.rows * about.columns > site.max_pixels)
    throw refuse(`it has ${about.columns} x ${about.rows} pixels, limit ${site.max_pixels / 1e6} megapixels`);
  const tables = ["x00283000", "x00283010"].filter((tag) => data.elements[tag]?.items?.length);
  if (tables.length) throw refuse("DICOM with lookup tables is not read in a browser; use mobileutr predict");
  const grey = about.samples === 1 && ["MONOCHROME1", "MONOCHROME2"].includes(about.photometric);
  const colour = about.samples === 3 && ["RGB", "YBR_FULL"].includes(about.photometric);
  const bits = colour ? [8] : [8, 16];
  if (!(grey || colour) || !bits.includes(about.allocated) || about.stored > about.allocated)
    throw refuse(
      `DICOM with ${about.photometric} pixels of ${about.allocated} bits is not read in a browser; use mobileutr predict`,
    );
}

/** Returns samples without the bits above and below the stored ones, with their sign. */
function readSamples(bytes, place, count, { allocated, stored, highBit, signed, samples }) {
  const part = bytes.slice(place, place + (count * allocated) / 8);
  const raw = allocated === 16 ? new Uint16Array(part.buffer) : part;
  const low = samples > 1 ? 0 : highBit + 1 - stored;
  const values = new Int32Array(count);
  for (let i = 0; i < count; i += 1) {
    const value = (raw[i] >> low) & (2 ** stored - 1);
    values[i] = signed && value >= 2 ** (stored - 1) ? value - 2 ** stored : value;
  }
  return values;
}

function showColours(stored, { rows, columns, planar, photometric }) {
  const size = rows * columns;
  const rgba = new Uint8ClampedArray(4 * size).fill(255);
  for (let i = 0; i < size; i += 1) {
    const [a, b, c] = [0, 1, 2].map((sample) => stored[planar ? sample * size + i : 3 * i + sample]);
    const colour = photometric === "RGB" ? [a, b, c] : toRgb(a, b - 128, c - 128);
    rgba.set(colour, 4 * i);
  }
  return rgba;
}

/** PS3.3 C.7.6.3.1.2, inverted. */
function toRgb(y, blue, red) {
  const colour = [y + 1.402 * red, y - (0.114 * 1.772 * blue + 0.299 * 1.402 * red) / 0.587, y + 1.772 * blue];
  return colour.map((value) => Math.floor(value + 0.5));
}

function showGrey(stored, data, about, site) {
  const padding = findPadding(data, about);
  const shown = applyWindow(stored, data, about, site, padding);
  const rgba = new Uint8ClampedArray(4 * stored.length).fill(255);
  for (let i = 0; i < stored.length; i += 1) {
    const grey = padding?.(stored[i]) ? 0 : about.photometric === "MONOCHROME1" ? 255 - shown[i] : shown[i];
    rgba[4 * i] = rgba[4 * i + 1] = rgba[4 * i + 2] = grey;
  }
  return rgba;
}

/** Returns whether a stored value is padding, PS3.3 C.7.5.1.1.2; null without any. */
function findPadding(data, { allocated, signed }) {
  const read = (tag) => (data.elements[tag]?.length ? (signed ? data.int16(tag) : data.uint16(tag)) : null);
  const value = read("x00280120");
  if (value === null) return null;
  const limit = read("x00280121") ?? value;
  const ends = allocated === 8 && signed ? [value, limit].map((end) => (end << 24) >> 24) : [value, limit];
  return (sample) => sample >= Math.min(...ends) && sample <= Math.max(...ends);
}

function applyWindow(stored, data, about, site, padding) {
  const slope = readNumber(data, "x00281053"), intercept = readNumber(data, "x00281052");
  const isScaled = slope !== null && intercept !== null;
  const values = Float64Array.from(stored, (value) => (isScaled ? value * slope + intercept : value));
  const shape = data.string("x00281056") || "LINEAR";
  let center = readNumber(data, "x00281050"), width = readNumber(data, "x00281051");
  const least = shape === "LINEAR" ? 1 : Number.MIN_VALUE;
  if (center === null || width === null || !(width >= least)) center = null;
  if (center === null && about.stored <= 8 && !about.signed) {
    const top = 2 ** about.stored - 1;
    return Uint8ClampedArray.from(stored, (value) => (about.stored < 8 ? roundEven((value * 255) / top) : value));
  }
  if (center === null && site.windows[about.modality] && readNumber(data, "x00281053") !== null)
    [center, width] = site.windows[about.modality];
  if (center === null) return stretch(values, stored, padding);
  return Uint8ClampedArray.from(values, windowing(shape, center, width));
}

/** PS3.3 C.11.2.1.2 and C.11.2.1.3. */
function windowing(shape, center, width) {
  if (shape === "SIGMOID") return (value) => roundEven(255 / (1 + Math.exp((-4 * (value - center)) / width)));
  const [middle, span] = shape === "LINEAR" ? [center - 0.5, width - 1] : [center, width];
  return (value) => {
    if (value <= middle - span / 2) return 0;
    if (value > middle + span / 2) return 255;
    return roundEven(((value - middle) / span + 0.5) * 255);
  };
}

function stretch(values, stored, padding) {
  let low = Infinity, high = -Infinity;
  values.forEach((value, i) => {
    if (padding?.(stored[i])) return;
    low = Math.min(low, value);
    high = Math.max(high, value);
  });
  const scale = high > low ? 255 / (high - low) : 0;
  return Uint8ClampedArray.from(values, (value) => roundEven((value - low) * scale));
}

/** Rounds halves to even numbers, as NumPy does. */
function roundEven(value) {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 ? floor + 1 : floor;
}

/** Returns { spacing, tissue }: what readers/dicom/calibration.py finds. */
function readScale(data, { rows, columns, modality }, { spacing: rule }) {
  const regions = data.elements.x00186011?.items;
  if (regions?.length) return readRegions(regions, rows, columns, rule);
  const none = { spacing: null, tissue: null };
  const spacing = readPair(data, "x00280030");
  if (!spacing || Math.min(...spacing) <= 0) return none;
  const found = { spacing, tissue: null };
  if (rule.cross_sections.includes(modality) || rule.calibrations.includes(data.string("x00280a02"))) return found;
  const imager = readPair(data, "x00181164");
  const isCalibrated = imager?.some((value, i) => Math.abs(spacing[i] - value) > rule.same_spacing * value);
  return isCalibrated ? found : none;
}

function readRegions(items, rows, columns, rule) {
  const tissue = [], sizes = [];
  for (const { dataSet: region } of items) {
    const [top, left, bottom, right] = ["x0018601a", "x00186018", "x0018601e", "x0018601c"].map((tag) => region.uint32(tag));
    const inside = top < bottom && bottom < rows + rule.overhang && left < right && right < columns + rule.overhang;
    if (!inside || region.uint16("x00186012") !== TISSUE) continue;
    tissue.push([top, left, Math.min(bottom + 1, rows), Math.min(right + 1, columns)]);
    const units = [region.uint16("x00186024"), region.uint16("x00186026")];
    const deltas = [region.double("x0018602e"), region.double("x0018602c")];
    const isKnown = units.every((unit) => unit === CENTIMETRES) && deltas.every((delta) => delta && Number.isFinite(delta));
    sizes.push(isKnown ? deltas.map((delta) => Math.abs(delta) * 10) : null);
  }
  const [first] = sizes;
  const agrees = (size) => size?.every((value, i) => Math.abs(value - first[i]) <= rule.same_scale * first[i]);
  return { spacing: first && sizes.every(agrees) ? first : null, tissue: tissue.length ? tissue : null };
}

/** Returns the first number of a text; null if there is none. */
function readNumber(data, tag) {
  const text = data.string(tag, 0);
  const value = text ? Number(text) : NaN;
  return Number.isFinite(value) ? value : null;
}

function readPair(data, tag) {
  const values = (data.string(tag) ?? "").split("\\").map((text) => (text.trim() ? Number(text) : NaN));
  return values.length === 2 && values.every(Number.isFinite) ? values : null;
}
