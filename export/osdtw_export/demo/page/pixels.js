// A file -> its RGB pixels, as Pillow's Image.open(...).convert("RGB") gives them: stored colours without conversion,
// colours under transparency kept, stored orientation (Exif) not applied.

const MAX_PIXELS = 80_000_000; // as osdtw_models/pixels.py
const STRIP = 4_000_000; // pixels read at once: phones refuse large canvases

/** Decode a Blob. Rejects with a sentence for the user. */
export async function decode(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const plain = new Blob(withoutOrientation(bytes), { type: blob.type });
  let bitmap;
  try {
    bitmap = await createImageBitmap(plain, { premultiplyAlpha: "none", colorSpaceConversion: "none" });
  } catch {
    throw new Error("This browser cannot read that file as a picture; try a JPEG or PNG file.");
  }
  try {
    if (bitmap.width * bitmap.height > MAX_PIXELS) {
      throw new Error(`${bitmap.width} × ${bitmap.height} pixels are too many; make the picture smaller.`);
    }
    return read(bitmap);
  } finally {
    bitmap.close();
  }
}

function read(bitmap) {
  const { width, height } = bitmap;
  const image = { width, height, data: new Uint8ClampedArray(width * height * 4) };
  const rows = Math.max(1, Math.min(height, Math.floor(STRIP / width)));
  const canvas = Object.assign(document.createElement("canvas"), { width, height: rows });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  let transparent = false;
  for (let top = 0; top < height; top += rows) {
    const count = Math.min(rows, height - top);
    context.clearRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, top, width, count, 0, 0, width, count);
    const strip = context.getImageData(0, 0, width, count).data;
    for (let i = 3; i < strip.length && !transparent; i += 4) transparent = strip[i] !== 255;
    image.data.set(strip, top * width * 4);
  }
  if (transparent) readColours(bitmap, image.data);
  for (let i = 3; i < image.data.length; i += 4) image.data[i] = 255;
  return image;
}

/** A 2D canvas multiplies colours by alpha and loses them; a texture does not. Without WebGL they stay as they are. */
function readColours(bitmap, data) {
  const canvas = document.createElement("canvas");
  const gl = canvas.getContext("webgl2") ?? canvas.getContext("webgl");
  if (!gl || Math.max(bitmap.width, bitmap.height) > gl.getParameter(gl.MAX_TEXTURE_SIZE)) return;
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  const texture = gl.getParameter(gl.TEXTURE_BINDING_2D);
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
  const { buffer, byteOffset, byteLength } = data;
  const view = new Uint8Array(buffer, byteOffset, byteLength); // readPixels takes no clamped array everywhere
  gl.readPixels(0, 0, bitmap.width, bitmap.height, gl.RGBA, gl.UNSIGNED_BYTE, view);
  gl.getExtension("WEBGL_lose_context")?.loseContext(); // browsers keep only a few contexts
}

/** The file without its Exif data, in parts: browsers turn pictures by it and have no switch for that. */
function withoutOrientation(bytes) {
  const view = new DataView(bytes.buffer);
  const without = (unwanted, all) =>
    all.filter(({ name }) => name !== unwanted).map(({ start, end }) => bytes.subarray(start, end));
  if (view.byteLength < 30) return [bytes];
  if (view.getUint16(0) === 0xffd8) return without("Exif", parts(view, 2, jpegSegment));
  if (letters(view, 1) === "PNG\r") {
    if (bytes[24] === 16 && bytes[25] === 0) throw new Error("Its greys have 16 bits; convert the picture to 8 bits.");
    return without("eXIf", parts(view, 8, pngChunk));
  }
  if (letters(view, 0) === "RIFF" && letters(view, 8) === "WEBP") {
    for (const { name, start } of parts(view, 12, webpChunk)) {
      if (name === "EXIF") view.setUint32(start, 0); // under another name: sizes that the file tells must stay true
    }
  }
  return [bytes];
}

/**
 * A file as its parts: the first `start` bytes, then what `next` finds from place to place, then the rest where it
 * finds nothing more. Together they are always the whole file; of a damaged one the decoder will complain.
 */
function parts(view, start, next) {
  const found = [{ name: "", start: 0, end: start }];
  for (let at = start; at < view.byteLength; ) {
    const part = at + 12 <= view.byteLength ? next(view, at) : null;
    const end = Math.min(part?.end ?? view.byteLength, view.byteLength);
    found.push({ name: part?.name ?? "", start: at, end });
    at = end;
  }
  return found;
}

// Each reads the part that starts at `at`: what it is called and where it ends; null where the pictures begin.
function jpegSegment(view, at) {
  const marker = view.getUint16(at);
  if (marker < 0xff01 || marker === 0xffda) return null;
  return { name: marker === 0xffe1 ? letters(view, at + 4) : "", end: at + 2 + view.getUint16(at + 2) };
}

function pngChunk(view, at) {
  return { name: letters(view, at + 4), end: at + 12 + view.getUint32(at) };
}

function webpChunk(view, at) {
  const size = view.getUint32(at + 4, true);
  return { name: letters(view, at), end: at + 8 + size + (size % 2) };
}

function letters(view, at) {
  return String.fromCharCode(...[0, 1, 2, 3].map((i) => view.getUint8(at + i)));
}
