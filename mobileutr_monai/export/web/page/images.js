// From a file to pixels: PNG and JPEG by the browser, DICOM by dicom.js. What would be misread is refused.

import { readDicom } from "./dicom.js";

const SIGNATURES = {
  png: [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a],
  jpeg: [0xff, 0xd8, 0xff],
};
const OTHERS = [
  ["a GIF", "GIF8"], ["a BMP", "BM"], ["a TIFF", "II*\0"], ["a TIFF", "MM\0*"], ["a WebP", "RIFF"], ["a PDF", "%PDF"],
  ["a ZIP archive", "PK\x03\x04"], ["a gzip file", "\x1f\x8b"],
];
const TAIL = 4096;

/** An error whose message is for the user. */
export class ImageError extends Error {}

/**
 * Reads a file.
 *
 * Returns { picture, pixels, rows, columns, channels: 3, spacing, tissue, modality }: a canvas to be shown, RGB bytes,
 * and of DICOM the height and width of a pixel in mm, where the file is calibrated, the boxes of tissue, where it
 * defines them, and the modality.
 */
export async function readImage(file, site) {
  if (!file.size) throw new ImageError("the file is empty");
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (startsWith(bytes, SIGNATURES.png)) return decode(bytes, "image/png", inspectPng(bytes), site);
  if (startsWith(bytes, SIGNATURES.jpeg)) return decode(bytes, "image/jpeg", inspectJpeg(bytes), site);
  if (textAt(bytes, 128, 4) === "DICM") {
    if (!site.dicom) throw new ImageError("this page was exported without DICOM; use a PNG or JPEG");
    const { rows, columns, rgba, ...facts } = await readDicom(bytes, site, (text) => new ImageError(text));
    const picture = makeCanvas(rows, columns);
    picture.getContext("2d").putImageData(new ImageData(rgba, columns, rows), 0, 0);
    return check({ picture, ...dropAlpha(rgba, rows, columns), ...facts });
  }
  const other = OTHERS.find(([, start]) => textAt(bytes, 0, start.length) === start);
  throw new ImageError(`it is ${other ? `${other[0]}, ` : ""}not a PNG, JPEG or DICOM image`);
}

async function decode(bytes, type, { rows, columns }, site) {
  if (rows * columns > site.max_pixels)
    throw new ImageError(`it has ${columns} x ${rows} pixels, limit ${site.max_pixels / 1e6} megapixels`);
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob([bytes], { type }), {
      imageOrientation: "from-image",
      colorSpaceConversion: "none",
      premultiplyAlpha: "none",
    });
  } catch {
    throw new ImageError("it is damaged or cut off");
  }
  const picture = makeCanvas(bitmap.height, bitmap.width);
  const context = picture.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, picture.width, picture.height);
  return check({ picture, ...dropAlpha(data, picture.height, picture.width), spacing: null, tissue: null, modality: "" });
}

function check(image) {
  if (image.pixels.every((value) => value === image.pixels[0]))
    throw new ImageError(`all pixels have the value ${image.pixels[0]}: there is nothing to segment`);
  return image;
}

function dropAlpha(rgba, rows, columns) {
  const pixels = new Uint8Array(rows * columns * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    // The browser has mixed colours that are transparent; mobileutr predict ignores the transparency.
    if (rgba[from + 3] !== 255) throw new ImageError("it has transparent pixels; save it without transparency");
    pixels[to++] = rgba[from];
    pixels[to++] = rgba[from + 1];
    pixels[to++] = rgba[from + 2];
  }
  return { pixels, rows, columns, channels: 3 };
}

/** Returns grey values of an RGB image, as Pillow converts them. */
export function toGrey({ pixels, rows, columns }) {
  const grey = new Uint8Array(rows * columns);
  for (let i = 0, from = 0; i < grey.length; i += 1, from += 3)
    grey[i] = (pixels[from] * 19595 + pixels[from + 1] * 38470 + pixels[from + 2] * 7471 + 0x8000) >> 16;
  return { pixels: grey, rows, columns, channels: 1 };
}

function makeCanvas(rows, columns) {
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  return canvas;
}

function inspectPng(bytes) {
  const view = new DataView(bytes.buffer);
  if (bytes.length < 45 || textAt(bytes, 12, 4) !== "IHDR") throw new ImageError("it is damaged or cut off");
  if (view.getUint8(24) === 16)
    throw new ImageError("it has 16 bits per channel, which browsers reduce to 8; save it with 8 bits");
  let chunk = "";
  for (let place = 8; place + 12 <= bytes.length && chunk !== "IEND"; place += 12 + view.getUint32(place)) {
    chunk = textAt(bytes, place + 4, 4);
    if (chunk === "acTL") throw new ImageError("it is an animation; save one frame as an image");
  }
  if (chunk !== "IEND") throw new ImageError("it is damaged or cut off");
  return { columns: view.getUint32(16), rows: view.getUint32(20) };
}

function inspectJpeg(bytes) {
  const view = new DataView(bytes.buffer);
  const damaged = new ImageError("it is damaged or cut off");
  const tail = bytes.subarray(-TAIL);
  if (!tail.some((value, i) => value === 0xff && tail[i + 1] === 0xd9)) throw damaged;
  for (let place = 2; place + 10 < bytes.length; place += 2 + view.getUint16(place + 2)) {
    while (bytes[place + 1] === 0xff) place += 1;
    const marker = bytes[place + 1];
    if (bytes[place] !== 0xff || marker === 0xda) throw damaged;
    // Start of a frame: C0 to CF, but for tables (C4, CC) and the reserved C8.
    if (marker < 0xc0 || marker > 0xcf || [0xc4, 0xc8, 0xcc].includes(marker)) continue;
    if (view.getUint8(place + 4) !== 8) throw new ImageError("it has more than 8 bits per channel; save it with 8 bits");
    if (view.getUint8(place + 9) === 4) throw new ImageError("it is in CMYK; save it in RGB");
    return { rows: view.getUint16(place + 5), columns: view.getUint16(place + 7) };
  }
  throw damaged;
}

function startsWith(bytes, signature) {
  return signature.every((value, i) => bytes[i] === value);
}

function textAt(bytes, place, length) {
  return String.fromCharCode(...bytes.subarray(place, place + length));
}
