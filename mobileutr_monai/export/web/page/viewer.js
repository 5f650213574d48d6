// Draws an image with its labels, sharp at any size of the screen.

import { findContour } from "./label.js";

const LINE = 2, HALO = 4.5;
const FILL = "66"; // opacity of areas, in hexadecimal

/** Shows one image on a canvas that fills its parent. */
export class Viewer {
  constructor(canvas) {
    this.canvas = canvas;
    this.content = null;
    new ResizeObserver(() => this.draw()).observe(canvas.parentElement);
  }

  /** content: { picture, rows, columns, label, labels, shown, probabilityAt, threshold }; null for nothing. */
  show(content) {
    const isSame = this.content && content && this.content.label === content.label;
    const paths = isSame ? this.content.paths : content?.label ? makePaths(content) : [];
    this.content = content && { ...content, paths };
    this.canvas.hidden = !content;
    this.draw();
  }

  draw() {
    if (!this.content) return;
    const { picture, rows, columns, paths, shown } = this.content;
    const { clientWidth, clientHeight } = this.canvas.parentElement;
    const density = window.devicePixelRatio || 1;
    const scale = Math.min(clientWidth / columns, clientHeight / rows);
    this.canvas.style.width = `${columns * scale}px`;
    this.canvas.style.height = `${rows * scale}px`;
    this.canvas.width = Math.max(1, Math.round(columns * scale * density));
    this.canvas.height = Math.max(1, Math.round(rows * scale * density));
    const context = this.canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, 0, 0, this.canvas.width, this.canvas.height);
    if (shown === "image") return;
    const zoom = scale * density;
    context.scale(zoom, zoom);
    context.lineJoin = context.lineCap = "round";
    for (const { path, area, colour } of paths) {
      if (shown === "filled") {
        context.fillStyle = colour + FILL;
        context.fill(area);
      }
      for (const [style, width] of [["#000a", HALO], [colour, LINE]]) {
        context.strokeStyle = style;
        context.lineWidth = (width * density) / zoom;
        context.stroke(path);
      }
    }
  }
}

function makePaths({ label, rows, columns, labels, probabilityAt, threshold }) {
  return labels.map(({ index, colour }) => {
    const segments = findContour(label, rows, columns, index, probabilityAt, threshold);
    const path = new Path2D();
    for (let i = 0; i < segments.length; i += 4) {
      path.moveTo(segments[i], segments[i + 1]);
      path.lineTo(segments[i + 2], segments[i + 3]);
    }
    return { path, area: makeArea(label, rows, columns, index), colour };
  });
}

/** The pixels of a label, as one rectangle per run in a row. */
function makeArea(label, rows, columns, index) {
  const area = new Path2D();
  for (let row = 0; row < rows; row += 1)
    for (let column = 0, start = -1; column <= columns; column += 1) {
      const inside = column < columns && label[row * columns + column] === index;
      if (inside && start < 0) start = column;
      if (!inside && start >= 0) {
        area.rect(start, row, column - start, 1);
        start = -1;
      }
    }
  return area;
}
