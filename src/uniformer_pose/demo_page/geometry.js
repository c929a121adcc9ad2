// Where things are: between the picture's pixels and the pixels of the view that shows it. No browser is needed here.
//
// A fit says how the picture lies in the view: picture x * scale + left is view x. Boxes are [x, y, width, height] and
// count from pixel edges; keypoints count from pixel centres, so that keypoint 0 lies at edge 0.5.

export function fitInto(viewWidth, viewHeight, pictureWidth, pictureHeight) {
  const scale = Math.min(viewWidth / pictureWidth, viewHeight / pictureHeight);
  return {
    scale,
    left: (viewWidth - pictureWidth * scale) / 2,
    top: (viewHeight - pictureHeight * scale) / 2,
  };
}

export function edgeToView([x, y], fit) {
  return [x * fit.scale + fit.left, y * fit.scale + fit.top];
}

export function keypointToView([x, y], fit) {
  return edgeToView([x + 0.5, y + 0.5], fit);
}

export function viewToEdge([x, y], fit) {
  return [(x - fit.left) / fit.scale, (y - fit.top) / fit.scale];
}

// The box between two points of the view, cut at the picture's edges and rounded to hundredths of its pixels; null if
// nothing of it lies inside.
export function boxBetween(first, second, fit, pictureWidth, pictureHeight) {
  const inside = (value, most) => Math.min(Math.max(value, 0), most);
  const round = (value) => Math.round(value * 100) / 100;
  const [a, b] = [viewToEdge(first, fit), viewToEdge(second, fit)];
  const x = [inside(a[0], pictureWidth), inside(b[0], pictureWidth)].sort((p, q) => p - q);
  const y = [inside(a[1], pictureHeight), inside(b[1], pictureHeight)].sort((p, q) => p - q);
  const box = [round(x[0]), round(y[0]), round(x[1] - x[0]), round(y[1] - y[0])];
  return box[2] > 0 && box[3] > 0 ? box : null;
}

// Index of the smallest of the boxes that hold a point of the view; -1 for none.
export function boxAt(point, boxes, fit) {
  const [x, y] = viewToEdge(point, fit);
  let best = -1;
  boxes.forEach(([left, top, width, height], index) => {
    const holds = x >= left && x <= left + width && y >= top && y <= top + height;
    if (holds && (best < 0 || width * height < boxes[best][2] * boxes[best][3])) best = index;
  });
  return best;
}

// A COCO result's flat list of x, y, score as [{point: [x, y], score}, ...].
export function keypointsOf(result) {
  const flat = result.keypoints;
  return Array.from({ length: flat.length / 3 }, (_, index) => ({
    point: [flat[3 * index], flat[3 * index + 1]],
    score: flat[3 * index + 2],
  }));
}

// The keypoint nearest to a point of the view, within `reach` of its pixels, of those whose score is above the
// threshold: {person, keypoint}, or null. `people` holds a list of keypointsOf or null for each person.
export function keypointAt(point, people, fit, threshold, reach) {
  let best = null;
  let nearest = reach;
  people.forEach((keypoints, person) => {
    (keypoints ?? []).forEach((entry, keypoint) => {
      if (!(entry.score > threshold)) return;
      const [x, y] = keypointToView(entry.point, fit);
      const distance = Math.hypot(x - point[0], y - point[1]);
      if (distance <= nearest) {
        nearest = distance;
        best = { person, keypoint };
      }
    });
  });
  return best;
}

// Width of a person's lines in view pixels: wider for larger people, never too thin to be seen.
export function strokeWidth(box, fit) {
  return Math.min(Math.max((Math.max(box[2], box[3]) * fit.scale) / 110, 1.5), 8);
}
