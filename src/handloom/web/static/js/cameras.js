// Where a clip's camera is and what it sees: poses, the frame in which things are shown, the pyramid of its image, points lifted by their depth.
import { Matrix4, Quaternion, Vector3 } from "../vendor/handloom-three.js";

export const FLIP = new Matrix4().makeScale(1, -1, -1); // x right, y down, z forward of handloom to y up, z backward of three

export const hasAny = (array) => !!array && array.data.some(Number.isFinite);

/** Whether the view is of the world. Where hands have places in the camera's frame alone (a path of unknown scale), it is of that. */
export function isInWorld(clip) {
  const { hand_keypoints_world_m: world, hand_keypoints_cam_m: camera } = clip.arrays;
  return clip.hasWorld && (hasAny(world) || !hasAny(camera));
}

/** `at(frame)` of (T, 4, 4) values: a Matrix4, null where unknown. unit_m: metres of the values' unit. */
export function posesOf(values, unit_m = 1) {
  return (frame) => {
    const pose = values.subarray(16 * frame, 16 * frame + 16);
    if (pose.length < 16 || !pose.every(Number.isFinite)) return null;
    const matrix = new Matrix4().set(...pose);
    return matrix.setPosition(new Vector3().setFromMatrixPosition(matrix).multiplyScalar(unit_m));
  };
}

/** [x, y, z, ...] of the known poses of `num` frames. */
export function placesOf(at, num) {
  const found = [];
  for (let frame = 0; frame < num; frame++) {
    const pose = at(frame);
    if (pose) found.push(...new Vector3().setFromMatrixPosition(pose).toArray());
  }
  return found;
}

/** The camera's poses: `at(frame)` a Matrix4 in metres, null unknown; the identity where there is no path; `first()`: the first known. fov: degrees. */
export function cameraPoses(clip) {
  const path = isInWorld(clip) ? posesOf(clip.arrays.world_from_camera.data, clip.facts.camera?.unit_m ?? 1) : null;
  const at = path ?? (() => new Matrix4());
  const num = path ? clip.length : 1;
  const first = () => {
    for (let frame = 0; frame < num; frame++) if (at(frame)) return at(frame);
    return null;
  };
  return { at, num, first, places: () => placesOf(at, num), fov: (360 / Math.PI) * Math.atan(slopeOf(clip)) };
}

const WIDEST = Math.tan((70 * Math.PI) / 180); // a flat view of more than 140 degrees shows nothing in its middle

/** y/z of what the camera sees at the middle of the image's upper or lower edge, the farther one: half the image's height; where the lens distorts, its direction there. */
export function slopeOf({ height, arrays: { camera_matrix: matrix, image_border_rays: border } }) {
  if (!border) return height / 2 / (matrix?.data[4] || height);
  const num = border.data.length / 3;
  const slopes = [num / 8, (5 * num) / 8].map((n) => {
    const [, y, z] = border.data.subarray(3 * n, 3 * n + 3);
    return Number.isFinite(y) && z > 0 ? Math.abs(y) / z : WIDEST;
  });
  return Math.min(Math.max(...slopes), WIDEST);
}

/** three_from_world: the first known camera looks away from the reader, and its up is up. */
export function upright(poses) {
  const turn = new Quaternion();
  poses.first()?.decompose(new Vector3(), turn, new Vector3());
  return new Matrix4().multiplyMatrices(FLIP, new Matrix4().makeRotationFromQuaternion(turn.invert()));
}

/**
 * Lines of the pyramid over the image, its ground at a distance in front of the camera. Where the lens distorts, along the
 * directions that it sees at the image's border (`image_border_rays`); those that it does not see are left out.
 */
export function frustumLines(clip, far) {
  const { camera_matrix: stored, image_border_rays: border } = clip.arrays;
  const lines = [];
  const ring = [];
  if (border) {
    for (let n = 0; n < border.data.length; n += 3) {
      const ray = [...border.data.subarray(n, n + 3)];
      ring.push(ray.every(Number.isFinite) ? ray.map((value) => value * far) : null);
    }
  } else {
    const matrix = stored?.data ?? [clip.height, 0, clip.width / 2, 0, clip.height, clip.height / 2];
    const corner = (x, y) => [((x - 0.5 - matrix[2]) / matrix[0]) * far, ((y - 0.5 - matrix[5]) / matrix[4]) * far, far];
    ring.push(corner(0, 0), corner(clip.width, 0), corner(clip.width, clip.height), corner(0, clip.height));
  }
  ring.forEach((point, n) => {
    const next = ring[(n + 1) % ring.length];
    if (point && next) lines.push(...point, ...next);
    if (point && n % (ring.length / 4) === 0) lines.push(0, 0, 0, ...point);
  });
  return lines;
}

/**
 * Places of tracks by their depth: (track or number in `regrid_...`, x, y, depth, pose, whether of a later grid) -> [x, y, z],
 * null unknown. Where the lens distorts the server has lifted them (`..._points_cam_m`): pages know no lens.
 */
export function lifter(clip) {
  const { camera_matrix: matrix, track_points_cam_m: tracks, regrid_points_cam_m: grids } = clip.arrays;
  if (!matrix) return null;
  const distorts = clip.facts.arrays.includes("camera_distortion");
  const [fx, , cx, , fy, cy] = matrix.data;
  const place = new Vector3();
  return (number, x, y, depth, pose, later) => {
    if (!pose || !(depth > 0)) return null;
    if (!distorts) place.set(((x - cx) / fx) * depth, ((y - cy) / fy) * depth, depth);
    else {
      const lifted = (later ? grids : tracks)?.data;
      if (!lifted || !Number.isFinite(lifted[3 * number])) return null;
      place.fromArray(lifted, 3 * number);
    }
    return place.applyMatrix4(pose).toArray();
  };
}
