// From probabilities to a label map, as mobileutr predict does it: bars, threshold, smallest peak, largest pieces.

/**
 * Returns [top, left, bottom, right] of what lies between bars of one grey level or colour; all where there are none.
 * The rule is that of readers/image_content.py; its numbers come with the site.
 */
export function findBetweenBars(image, rule) {
  const { pixels, rows, columns, channels } = image;
  let low = 255, high = 0;
  for (const value of pixels) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  const tolerance = rule.tolerance * (high - low);
  const at = (row, column) => (row * columns + column) * channels;
  const isOneLevel = (start, step, count) => {
    for (let i = 0, place = start.line; i < count; i += 1, place += step)
      for (let channel = 0; channel < channels; channel += 1)
        if (Math.abs(pixels[place + channel] - pixels[start.level + channel]) > tolerance) return false;
    return true;
  };
  const countBar = (length, placeOf, step, width) => {
    for (let i = 0; i < length; i += 1) if (!isOneLevel({ line: placeOf(i), level: placeOf(0) }, step, width)) return i;
    return 0;
  };
  const trim = (length, placeOf, step, width) => {
    const before = countBar(length, placeOf, step, width);
    const after = countBar(length, (i) => placeOf(length - 1 - i), step, width);
    const rest = length - before - after;
    return before + after < rule.least * length || rest < rule.between * length ? [0, length] : [before, length - after];
  };
  const [top, bottom] = trim(rows, (i) => at(i, 0), channels, columns);
  const [left, right] = trim(columns, (i) => at(top, i), columns * channels, bottom - top);
  return [top, left, bottom, right];
}

/** Returns the part of an image in a box, as an image. */
export function crop(image, [top, left, bottom, right]) {
  const { pixels, columns, channels } = image;
  const width = (right - left) * channels;
  const part = new Uint8Array((bottom - top) * width);
  for (let row = top; row < bottom; row += 1) {
    const start = (row * columns + left) * channels;
    part.set(pixels.subarray(start, start + width), (row - top) * width);
  }
  return { pixels: part, rows: bottom - top, columns: right - left, channels };
}

/** Returns the highest probability of each label, the first label's first. */
export function findPeaks({ data, count, size }) {
  const peaks = [];
  for (let channel = count === 1 ? 0 : 1; channel < count; channel += 1) {
    let peak = 0;
    for (let i = channel * size; i < (channel + 1) * size; i += 1) if (data[i] > peak) peak = data[i];
    peaks.push(peak);
  }
  return peaks;
}

/** Returns label indices; of one output channel by a threshold, of several the largest counts. */
export function decide({ data, count, size }, peaks, threshold, minPeak) {
  const label = new Uint8Array(size);
  const least = Math.fround(threshold);
  for (let i = 0; i < size; i += 1) {
    if (count === 1) {
      label[i] = data[i] >= least ? 1 : 0;
      continue;
    }
    let best = 0;
    for (let channel = 1; channel < count; channel += 1)
      if (data[channel * size + i] > data[best * size + i]) best = channel;
    label[i] = best;
  }
  const leftOut = peaks.map((peak) => peak < Math.fround(minPeak));
  if (leftOut.some(Boolean)) for (let i = 0; i < size; i += 1) if (leftOut[label[i] - 1]) label[i] = 0;
  return label;
}

/** Keeps of each label the largest piece; corners do not count as touch. */
export function keepLargestPieces(label, rows, columns) {
  const piece = new Int32Array(label.length);
  const best = new Map();
  const stack = [];
  let number = 0;
  for (let start = 0; start < label.length; start += 1) {
    if (!label[start] || piece[start]) continue;
    number += 1;
    let size = 0;
    piece[start] = number;
    stack.push(start);
    while (stack.length) {
      const place = stack.pop();
      const column = place % columns;
      size += 1;
      for (const next of [
        place - columns,
        place + columns,
        column > 0 ? place - 1 : -1,
        column < columns - 1 ? place + 1 : -1,
      ])
        if (next >= 0 && next < label.length && !piece[next] && label[next] === label[start]) {
          piece[next] = number;
          stack.push(next);
        }
    }
    if (size > (best.get(label[start])?.size ?? 0)) best.set(label[start], { size, number });
  }
  return label.map((value, place) => (value && best.get(value).number === piece[place] ? value : 0));
}

/** Puts the label map of a box into one of the whole image, of background. */
export function uncrop(label, [top, left, bottom, right], rows, columns) {
  if (bottom - top === rows && right - left === columns) return label;
  const whole = new Uint8Array(rows * columns);
  for (let row = top; row < bottom; row += 1)
    whole.set(label.subarray((row - top) * (right - left), (row - top + 1) * (right - left)), row * columns + left);
  return whole;
}

/** Returns the number of pixels of each label 1, 2 ... count; only those in any of the boxes, where there are boxes. */
export function countPixels(label, columns, count, boxes = null) {
  const pixels = new Array(count + 1).fill(0);
  label.forEach((value, place) => {
    if (!value) return;
    const row = Math.floor(place / columns), column = place % columns;
    if (boxes?.every(([top, left, bottom, right]) => row < top || row >= bottom || column < left || column >= right)) return;
    pixels[value] += 1;
  });
  return pixels.slice(1);
}

/**
 * Returns the contour of a label: a flat list of segments x, y, x, y, in pixels.
 *
 * It runs between the centres of pixels inside and outside; where the probabilities are known, to where they reach the
 * threshold, otherwise half way.
 */
export function findContour(label, rows, columns, index, probabilityAt, threshold) {
  const segments = [];
  const isIn = (row, column) =>
    row >= 0 && column >= 0 && row < rows && column < columns && label[row * columns + column] === index;
  const share = (inRow, inColumn, outRow, outColumn) => {
    if (!probabilityAt || outRow < 0 || outColumn < 0 || outRow >= rows || outColumn >= columns) return 0.5;
    const inside = probabilityAt(inRow, inColumn), outside = probabilityAt(outRow, outColumn);
    return inside >= threshold && outside < threshold ? (inside - threshold) / (inside - outside) : 0.5;
  };
  // Where the contour crosses the side of a cell between two corners, of which one is in.
  const cross = ([row, column, isFirstIn], [otherRow, otherColumn]) => {
    const t = isFirstIn
      ? share(row, column, otherRow, otherColumn)
      : 1 - share(otherRow, otherColumn, row, column);
    return [column + 0.5 + t * (otherColumn - column), row + 0.5 + t * (otherRow - row)];
  };
  for (let row = -1; row < rows; row += 1)
    for (let column = -1; column < columns; column += 1) {
      const corners = [[row, column], [row, column + 1], [row + 1, column + 1], [row + 1, column]];
      for (const corner of corners) corner.push(isIn(corner[0], corner[1]));
      const crossed = [0, 1, 2, 3].filter((side) => corners[side][2] !== corners[(side + 1) % 4][2]);
      if (!crossed.length) continue;
      const points = crossed.map((side) => cross(corners[side], corners[(side + 1) % 4]));
      // Corners do not count as touch: of two opposite ones each has a segment of its own.
      if (points.length === 4 && corners[0][2]) points.unshift(points.pop());
      for (let i = 0; i < points.length; i += 2) segments.push(...points[i], ...points[i + 1]);
    }
  return segments;
}
