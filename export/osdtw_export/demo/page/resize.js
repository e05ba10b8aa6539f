// Pillow's resampling and timm's evaluation transform, to the bit.
//
// A canvas scales as its browser likes: without antialiasing, or with another filter. The network was trained and
// measured on Pillow's pixels, so this repeats its src/libImaging/Resample.c: a triangle or cubic filter widened by the
// scale, coefficients of 22 bits, rows first, rounded to 8 bits between the two passes.

const BITS = 22;
const FILTERS = {
  bilinear: { support: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { support: 2, at: cubic },
};

function cubic(x) {
  const a = -0.5;
  x = Math.abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

/** For each of `to` positions: where it starts to read among `from`, and with which integer weights. */
function coefficients(from, to, { support, at }) {
  const scale = from / to;
  const wide = Math.max(1, scale);
  return Array.from({ length: to }, (_, place) => {
    const centre = (place + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - support * wide + 0.5));
    const end = Math.min(from, Math.trunc(centre + support * wide + 0.5));
    const inverse = 1 / wide;
    const weights = Array.from({ length: end - start }, (_, i) => at((i + start - centre + 0.5) * inverse));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    const whole = weights.map((weight) => {
      const scaled = (weight / sum) * (1 << BITS);
      return Math.trunc(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
    });
    return { start, weights: Int32Array.from(whole) };
  });
}

/**
 * One pass. `along` is the distance in bytes between neighbours that are mixed, `across` between the lines of them;
 * `outAlong` and `outAcross` are the same in the result.
 */
function pass(data, lines, table, along, across, outAlong, outAcross) {
  const result = new Uint8ClampedArray(lines * table.length * 4).fill(255);
  for (let line = 0; line < lines; line++) {
    for (let place = 0; place < table.length; place++) {
      const { start, weights } = table[place];
      let red = 1 << (BITS - 1), green = red, blue = red;
      for (let i = 0, at = line * across + start * along; i < weights.length; i++, at += along) {
        const weight = weights[i];
        red += data[at] * weight;
        green += data[at + 1] * weight;
        blue += data[at + 2] * weight;
      }
      const to = line * outAcross + place * outAlong; // the array itself clips to 0 .. 255
      result[to] = red >> BITS;
      result[to + 1] = green >> BITS;
      result[to + 2] = blue >> BITS;
    }
  }
  return result;
}

/**
 * `Image.resize((width, height), resample)` of an RGB image.
 *
 * Images are { width, height, data }, data RGBA; alpha is not read and comes out as 255.
 */
export function resize(image, width, height, interpolation) {
  const filter = FILTERS[interpolation];
  let { data } = image;
  if (width !== image.width) {
    data = pass(data, image.height, coefficients(image.width, width, filter), 4, image.width * 4, 4, width * 4);
  }
  if (height !== image.height) {
    data = pass(data, width, coefficients(image.height, height, filter), width * 4, 4, width * 4, 4);
  }
  return { width, height, data };
}

/** Python's `round`: halves go to the even neighbour. */
const round = (x) => (x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));

/** Scale the short side to side / cropPct and take the centre: `fit_image` of osdtw_models/pixels.py. */
export function fit(image, { side, crop_pct: cropPct, interpolation }) {
  const short = Math.floor(side / cropPct);
  const least = Math.min(image.width, image.height);
  const scaled = (length) => (length === least ? short : Math.trunc((short * length) / least));
  const { width, height, data } = resize(image, scaled(image.width), scaled(image.height), interpolation);
  const left = round((width - side) / 2), top = round((height - side) / 2);
  const cropped = new Uint8ClampedArray(side * side * 4);
  for (let y = 0; y < side; y++) {
    const start = ((top + y) * width + left) * 4;
    cropped.set(data.subarray(start, start + side * 4), y * side * 4);
  }
  return { width: side, height: side, data: cropped };
}
