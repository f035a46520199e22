// Figures in a 3D view: a hand of sticks with the way of its wrist, figures of lines (a body, a true hand), boxes of things.
import {
  BoxGeometry, EdgesGeometry, InstancedMesh, Line, LineBasicMaterial, LineSegments, Matrix4, MeshBasicMaterial, Points, PointsMaterial, Quaternion,
  Vector3,
} from "../vendor/handloom-three.js";
import { NUM_KEYPOINTS, SKELETON, thingColor } from "./overlay.js";
import { moving, setPlaces, shownColor } from "./space.js";

const TRAIL_FRAMES = 15;
const DASHES = [[0, 0.22], [0.39, 0.61], [0.78, 1]]; // of a bone

/** A hand's (63,) places in a frame, of (T, 2, 21, 3) values; null where one is unknown. */
export function handAt(values, frame, hand) {
  const first = 3 * NUM_KEYPOINTS * (2 * frame + hand);
  const found = values?.subarray(first, first + 3 * NUM_KEYPOINTS);
  return found?.length && found.every(Number.isFinite) ? found : null;
}

/** A hand of sticks, its joints, and the way of its wrist in the last frames. */
export class HandFigure {
  constructor(space, color) {
    const shown = shownColor(color);
    this.points = moving(NUM_KEYPOINTS);
    this.bones = space.add(new InstancedMesh(new BoxGeometry(1, 1, 1), new MeshBasicMaterial({ color: shown }), SKELETON.length));
    this.joints = space.add(new Points(this.points, new PointsMaterial({ color: shown, size: 3, sizeAttenuation: false })));
    this.trail = space.add(new Line(moving(TRAIL_FRAMES), new LineBasicMaterial({ color: shown, transparent: true, opacity: 0.6 })));
  }

  /** values: (T, 2, 21, 3), or null: nothing is shown. */
  show(values, frame, hand) {
    const now = handAt(values, frame, hand);
    this.bones.visible = this.joints.visible = !!now;
    if (now) {
      setPlaces(this.points, now);
      setBones(this.bones, now);
    }
    const way = []; // of the wrist, as far as it is known without a gap
    for (let f = frame; values && f >= Math.max(0, frame - TRAIL_FRAMES + 1); f--) {
      const first = 3 * NUM_KEYPOINTS * (2 * f + hand);
      if (!Number.isFinite(values[first])) break;
      way.push(values[first], values[first + 1], values[first + 2]);
    }
    this.trail.visible = way.length > 3;
    setPlaces(this.trail.geometry, way);
  }
}

/** Bones as lines, dashed or not; a bone with an unknown end is left out. */
export class LineFigure {
  constructor(space, bones, dashed) {
    this.bones = bones;
    this.parts = dashed ? DASHES : [[0, 1]];
    this.lines = space.add(new LineSegments(moving(2 * bones.length * this.parts.length), new LineBasicMaterial()));
  }

  /** values: (3K,) places of the keypoints; null: nothing is shown. */
  show(values) {
    const places = [];
    for (const [a, b] of values ? this.bones : []) {
      if (!Number.isFinite(values[3 * a]) || !Number.isFinite(values[3 * b])) continue;
      for (const part of this.parts)
        for (const share of part)
          for (let k = 0; k < 3; k++) places.push(values[3 * a + k] + share * (values[3 * b + k] - values[3 * a + k]));
    }
    this.lines.visible = places.length > 0;
    setPlaces(this.lines.geometry, places);
  }

  tint(color) {
    this.lines.material.color.copy(color);
  }
}

/** Every second step of a way [x, y, z, ...] as a dash. */
export function dashedWay(values) {
  const found = [];
  for (let n = 0; n + 6 <= values.length; n += 6) found.push(...values.slice(n, n + 6));
  return found;
}

const STICK = { matrix: new Matrix4(), from: new Vector3(), way: new Vector3(), turn: new Quaternion(), size: new Vector3(), up: new Vector3(0, 1, 0) };

/** A stick for each bone of a hand, as thick as a fourteenth of the palm. values: (63,) places of the keypoints. */
function setBones(bones, values) {
  const { matrix, from, way, turn, size, up } = STICK;
  const place = (k, into) => into.fromArray(values, 3 * k);
  const thick = place(9, way).sub(place(0, from)).length() / 14;
  SKELETON.forEach(([a, b], n) => {
    place(b, way).sub(place(a, from));
    const length = way.length();
    turn.setFromUnitVectors(up, size.copy(way).divideScalar(length || 1));
    matrix.compose(from.addScaledVector(way, 0.5), turn, size.set(thick, length || thick, thick));
    bones.setMatrixAt(n, matrix);
  });
  bones.instanceMatrix.needsUpdate = true;
}

/** [{part, poses}] of the things whose poses are known: (K, T, 4, 4) and their boxes (K, 6), least and largest corner. */
export function thingBoxes({ facts, arrays: { things, things_box_m: boxes } }) {
  if (!things || !boxes) return [];
  const size = things.data.length / things.shape[0];
  return Array.from({ length: things.shape[0] }, (_, k) => {
    const [x0, y0, z0, x1, y1, z1] = boxes.data.subarray(6 * k, 6 * k + 6);
    const box = new BoxGeometry(x1 - x0, y1 - y0, z1 - z0).translate((x0 + x1) / 2, (y0 + y1) / 2, (z0 + z1) / 2);
    const part = new LineSegments(new EdgesGeometry(box), new LineBasicMaterial({ color: shownColor(thingColor(facts.things?.[k]?.name ?? `object_${k + 1}`)) }));
    box.dispose();
    part.matrixAutoUpdate = false;
    return { part, poses: things.data.subarray(size * k, size * (k + 1)) };
  });
}
