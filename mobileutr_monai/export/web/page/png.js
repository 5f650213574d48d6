// Label indices as an 8-bit grey PNG: a canvas would write colours, and could change them.

const TABLE = Uint32Array.from({ length: 256 }, (_, number) => {
  let value = number;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

/** Returns a Blob of an image of one byte per pixel. */
export async function encodeGrey(values, rows, columns) {
  const lines = new Uint8Array(rows * (columns + 1));
  for (let row = 0; row < rows; row += 1)
    lines.set(values.subarray(row * columns, (row + 1) * columns), row * (columns + 1) + 1);
  const stream = new Blob([lines]).stream().pipeThrough(new CompressionStream("deflate"));
  const packed = new Uint8Array(await new Response(stream).arrayBuffer());
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, columns);
  view.setUint32(4, rows);
  header.set([8, 0, 0, 0, 0], 8);
  const signature = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
  const parts = [signature, chunk("IHDR", header), chunk("IDAT", packed), chunk("IEND", new Uint8Array())];
  return new Blob(parts, { type: "image/png" });
}

function chunk(name, data) {
  const bytes = new Uint8Array(12 + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set([...name].map((letter) => letter.charCodeAt(0)), 4);
  bytes.set(data, 8);
  let sum = 0xffffffff;
  for (const value of bytes.subarray(4, 8 + data.length)) sum = TABLE[(sum ^ value) & 255] ^ (sum >>> 8);
  view.setUint32(8 + data.length, ~sum >>> 0);
  return bytes;
}
