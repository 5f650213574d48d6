// A label's row in the table: its area and highest probability.

/** pixels: of the label; inTissue: those in the tissue regions of an ultrasound, all of them in other images. */
export function makeRow({ name, colour }, place, pixels, inTissue, { image, found }) {
  const row = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  const swatch = document.createElement("span");
  swatch.className = "swatch";
  swatch.style.background = colour;
  head.append(swatch, name);
  const share = `${((100 * pixels) / found.label.length).toFixed(1)} % of the image`;
  const outside = `${((100 * (pixels - inTissue)) / pixels).toFixed(1)} % of it outside of the tissue regions of the file`;
  const note = inTissue < pixels ? `${share}, ${outside}` : share;
  row.append(head, makeCell(formatArea(pixels, inTissue, image.spacing), note), makeCell(found.peaks[place].toFixed(2)));
  return row;
}

function makeCell(text, note = "") {
  const cell = document.createElement("td");
  cell.textContent = text;
  if (note) {
    const small = document.createElement("small");
    small.textContent = note;
    cell.append(small);
  }
  return cell;
}

/** In mm² what lies in the tissue, of which alone the scale is known. */
function formatArea(pixels, inTissue, spacing) {
  if (!spacing) return `${pixels.toLocaleString("en")} px`;
  const area = inTissue * spacing[0] * spacing[1];
  return `${area.toLocaleString("en", { maximumFractionDigits: area < 100 ? 1 : 0 })} mm²`;
}
