// A clip in 3D on the page's clock: hands, a body, tracks, held things, the camera and its path, and the truth where it is known.
import { BufferAttribute, Line, LineBasicMaterial, LineSegments, Matrix4, Points, PointsMaterial, Vector3 } from "../vendor/handloom-three.js";
import { html, useEffect } from "../vendor/handloom-vendor.js";
import { cameraPoses, FLIP, frustumLines, hasAny, isInWorld, lifter, placesOf, posesOf, upright } from "./cameras.js";
import { useLive } from "./clock.js";
import { dashedWay, handAt, HandFigure, LineFigure, thingBoxes } from "./figures.js";
import { BODY_BONES, BODY_COLOR, HAND_COLORS, NUM_KEYPOINTS, SKELETON } from "./overlay.js";
import { VIEWS } from "./player.js";
import { indexAt } from "./row.js";
import { amid, axesLines, bounds, fixed, moving, NoSpace, placed, shownColor, Space, useSpace } from "./space.js";

const BESIDE = [0.8, 0.5, 0.6]; // from what is shown to the reader's eye; the first camera looks along -z
const STRAYS = { hands: 0.05, tracks: 0.1 }; // shares of places at each end of an axis that the first view need not show

/** The 3D view of one clip. revision: changes when arrays have come; view: one of `VIEWS`; truth: of the clip, or null. */
export function Scene({ clip, clock, layers, view, setView, revision, truth }) {
  const { hand_keypoints_cam_m: hands, body_keypoints_cam_m: body } = clip.arrays;
  const known = clip.hasWorld || hasAny(hands) || hasAny(body);
  const frame = () => indexAt(clip.times, clock.at.peek());
  const { canvas, bar, space, failed } = useSpace(
    (at, scale, lost) => {
      const world = new World(at, scale, clip, layers, lost);
      world.setView(view);
      world.show(frame());
      return world;
    },
    [clip, revision, known],
  );
  useEffect(() => space()?.setView(view), [view]);
  useEffect(() => space()?.setTruth(truth), [truth, clip, revision, known]);
  useLive([clock.at, layers], () => space()?.show(frame()));

  if (!known) return html`<div class="clip-scene clip-empty"><p>No position in 3D is known of this clip: no camera path, and no hand with a place.</p></div>`;
  if (failed) return html`<${NoSpace} why=${failed} instead="The image shows the same hands and tracks." />`;
  return html`
    <figure class="clip-scene">
      <div class="clip-space" style=${{ aspectRatio: `${Math.max(clip.width / clip.height, 0.75)}` }}>
        <canvas ref=${canvas} role="img" aria-label="3D view: hands, tracks and camera"></canvas>
        <div class="clip-views switch" role="group" aria-label="View">
          ${VIEWS.map(([name, title]) => html`<button type="button" key=${name} class="button" aria-pressed=${view === name} onClick=${() => setView(name)} title="Next view: v">${title}</button>`)}
        </div>
        <div class="clip-bar num" ref=${bar} hidden><span></span><i></i></div>
      </div>
      <figcaption>${caption(clip, truth)}</figcaption>
    </figure>
  `;
}

/** What the reader must know about the frame, the scale and what is missing. */
export function caption(clip, truth) {
  const { scale, path_reason: reason } = clip.facts.camera ?? {};
  const { arrays, tracks } = clip;
  const world = isInWorld(clip);
  const lifted = (world && hasAny(arrays.track_points_world_m)) || arrays.track_depth_m?.data.some((depth) => depth > 0);
  const hands = hasAny(world ? arrays.hand_keypoints_world_m : arrays.hand_keypoints_cam_m);
  const shown = [hands && "hands", hasAny(arrays.body_keypoints_cam_m) && "the body", lifted && "tracks whose depth is known"].filter(Boolean);
  const what = `${shown.join(" and ") || "the camera"} ${!shown.length || shown.join() === "the body" ? "is" : "are"}`;
  const words = [];
  if (clip.hasWorld && !world) words.push(`The camera path has no known scale: ${what} shown in the camera's frame, in metres.`);
  else if (!clip.hasWorld) words.push(`No camera path is known${reason ? ` (${reason.replaceAll("_", " ")})` : ""}: ${what} shown in the camera's frame.`);
  else if (scale !== "metric") words.push("World of the camera path. Its scale is unknown: lengths have no unit.");
  else words.push("World of the camera path, in metres. Up is the first camera's up.");
  if (tracks && !lifted) words.push("The tracks have no depth: they are on the image alone.");
  if (clip.facts.arrays?.includes("camera_distortion")) words.push("The lens distorts, this view does not: with “Camera” it differs from the image near the edges.");
  if (hasAny(arrays.body_keypoints_cam_m)) words.push("The body is that of a person of usual size: it appears where it was seen, its distance is a guess.");
  if (truth) words.push(truthWords(clip, truth));
  return words.join(" ");
}

function truthWords(clip, { arrays }) {
  if (isInWorld(clip) && !arrays.truth_keypoints_world_m) return "The truth is not shown here: this world has no metres.";
  const laid = isInWorld(clip) && clip.facts.camera?.path_source === "estimated";
  return `Dashed: the truth${laid ? ", laid on this world by one rigid motion that fits the cameras" : ""}.`;
}

/** The objects of one clip on one canvas. */
class World extends Space {
  constructor(canvas, bar, clip, layers, lost) {
    super(canvas, bar, { lost });
    Object.assign(this, { clip, layers, view: "orbit", truth: null });
    this.poses = cameraPoses(clip);
    this.root.matrixAutoUpdate = false;
    this.root.matrix.copy(upright(this.poses));
    this.build();
    this.tint();
  }

  build() {
    const { clip } = this;
    const { arrays, tracks } = clip;
    const inWorld = (this.inWorld = isInWorld(clip));
    this.hands = (inWorld ? arrays.hand_keypoints_world_m : arrays.hand_keypoints_cam_m)?.data;
    this.handFigures = HAND_COLORS.map((color) => new HandFigure(this, color));
    this.trueHands = HAND_COLORS.map(() => new LineFigure(this, SKELETON, true));
    this.body = arrays.body_keypoints_cam_m && new LineFigure(this, BODY_BONES, false);
    this.body?.tint(shownColor(BODY_COLOR));
    this.lift = lifter(clip);
    this.hasLater = !!this.lift && !!arrays.regrid_depth_m && (!!arrays.regrid_points_cam_m || !clip.facts.arrays.includes("camera_distortion"));
    if (tracks && (inWorld ? tracks.world || tracks.depth : tracks.depth)) {
      const geometry = moving(tracks.num);
      geometry.setAttribute("color", new BufferAttribute(tracks.colors.slice(), 3, true));
      this.cloud = this.add(new Points(geometry, new PointsMaterial({ size: 3, sizeAttenuation: false, vertexColors: true })));
    }
    this.path = this.add(new Line(fixed(this.poses.places()), new LineBasicMaterial()));
    this.path.visible = inWorld;
    this.truePath = this.add(new LineSegments(fixed([]), new LineBasicMaterial()));
    const places = this.seenPlaces();
    const [low, high] = bounds(places);
    const size = Math.min(Math.max(Math.hypot(...high.map((value, k) => value - low[k])), 0.2), 50); // about how large the whole is, in the clip's units
    const first = this.poses.first();
    const lines = frustumLines(clip, (0.12 * size) / Math.max(1, 1.5 * Math.tan((this.poses.fov * Math.PI) / 360))); // flatter where the lens is wide
    this.places = placed(this.root.matrix, [...places, ...(first ? placed(first, lines) : [])]);
    this.frustum = this.pyramid(lines);
    this.trueFrustum = this.pyramid(lines);
    this.axes = [this.add(axesLines(0.1 * size)), this.add(axesLines(0.06 * size), this.frustum)];
    this.things = thingBoxes(clip);
    for (const { part } of this.things) this.add(part);
  }

  pyramid(lines) {
    const part = this.add(new LineSegments(fixed(lines), new LineBasicMaterial()));
    part.matrixAutoUpdate = false;
    return part;
  }

  /** The truth of the clip, or null: {arrays: truth_keypoints_cam_m, and truth_keypoints_world_m, truth_world_from_camera where the world has metres}. */
  setTruth(truth) {
    const { truth_keypoints_world_m: world, truth_keypoints_cam_m: camera, truth_world_from_camera: cameras, truth_present: present } = truth?.arrays ?? {};
    this.truth = (this.inWorld ? world : camera)?.data ?? null;
    this.truePresent = present?.data;
    this.trueAt = this.inWorld && cameras && this.clip.facts.camera?.path_source === "estimated" ? posesOf(cameras.data) : null;
    this.truePath.geometry.dispose();
    this.truePath.geometry = fixed(this.trueAt ? dashedWay(placesOf(this.trueAt, this.clip.length)) : []);
    this.schedule();
  }

  /**
   * [x, y, z, ...] of what the view begins with: the camera in all frames, most places of the hands, the body and the tracks. A place
   * that few others share is left out: it would make all the rest small.
   */
  seenPlaces() {
    const { hands, clip } = this;
    const [joints, bodies] = [[], []];
    const one = 6 * NUM_KEYPOINTS; // numbers of a frame
    for (let n = 0; hands && n < clip.length; n += Math.ceil(clip.length / 100)) for (const value of hands.subarray(one * n, one * (n + 1))) joints.push(value);
    for (let n = 0; this.body && n < clip.length; n += 5) bodies.push(...(this.bodyAt(n) ?? []));
    return [...this.poses.places(), ...amid(joints, STRAYS.hands), ...amid(bodies, STRAYS.hands), ...(this.cloud ? amid(this.cloudPlaces(), STRAYS.tracks) : [])];
  }

  /** [x, y, z, ...] of the tracks over some frames. */
  cloudPlaces() {
    const { clip, cloud } = this;
    const found = [];
    for (let n = 0; n < 6; n++) {
      this.setCloud(clip.tracks, Math.round((n * (clip.length - 1)) / 5));
      for (const value of cloud.geometry.attributes.position.array.subarray(0, 3 * cloud.geometry.drawRange.count)) found.push(value);
    }
    return found;
  }

  setView(view) {
    const { controls, eye } = this;
    this.view = view;
    controls.enabled = view !== "camera";
    eye.fov = view === "camera" ? this.poses.fov : 50;
    eye.up.set(0, 1, 0);
    if (view !== "camera") this.lookAt(this.places, view === "top" ? [0, 1, 1e-4] : BESIDE);
    this.schedule();
  }

  /** Light or dark: lines that carry no data's colour take the text's. */
  tint() {
    const [text, soft] = [this.themed("--text"), this.themed("--soft")];
    for (const line of [this.path, this.truePath, this.trueFrustum]) line.material.color.copy(text);
    for (const figure of this.trueHands) figure.tint(text);
    this.frustum.material.color.copy(soft);
    this.renderer.setClearColor(this.themed("--panel"));
  }

  update(width, height) {
    const { frame, clip, layers, hands, truth } = this;
    const shown = layers.peek();
    const trueShown = shown.truth && !!truth;
    this.handFigures.forEach((figure, hand) => figure.show(shown.hands ? hands : null, frame, hand));
    this.trueHands.forEach((figure, hand) => figure.show(trueShown && this.truePresent[2 * frame + hand] ? handAt(truth, frame, hand) : null));
    this.body?.show(shown.body ? this.bodyAt(frame) : null);
    if (this.cloud) {
      this.cloud.visible = shown.tracks;
      if (shown.tracks) this.setCloud(clip.tracks, frame);
    }
    const beside = this.view !== "camera";
    this.stand(this.frustum, beside ? this.poses.at(frame) : null);
    this.stand(this.trueFrustum, beside && trueShown ? this.trueAt?.(frame) : null);
    this.truePath.visible = trueShown;
    for (const { part, poses } of this.things) this.stand(part, shown.things ? posesOf(poses)(frame) : null);
    if (!beside) this.lookThroughCamera(width / height);
  }

  /** A part at its pose; without one it is not shown. */
  stand(part, pose) {
    part.visible = !!pose;
    if (!pose) return;
    part.matrix.copy(pose);
    part.matrixWorldNeedsUpdate = true;
  }

  /** The body's places of a frame in the frame that is shown; null without any. */
  bodyAt(frame) {
    const { clip, poses } = this;
    const { body_keypoints_cam_m: body } = clip.arrays;
    const pose = poses.at(frame);
    const size = body.data.length / clip.length;
    const values = body.data.subarray(size * frame, size * (frame + 1));
    if (!pose || !values.some(Number.isFinite)) return null;
    return placed(pose, values);
  }

  /** The tracks of a frame, those with a place first. */
  setCloud(tracks, frame) {
    const { position, color } = this.cloud.geometry.attributes;
    const grid = this.hasLater ? tracks.best(frame) : null; // later grids have no places of their own in the world
    const { xy, depth, number } = tracks.at(frame, grid);
    const pose = this.poses.at(frame);
    let num = 0;
    for (let n = 0; n < tracks.num; n++) {
      const later = !!grid && n < tracks.numGrid;
      let place = null;
      if (tracks.world && this.inWorld && !later) {
        const first = 3 * (frame * tracks.num + n);
        place = [tracks.world[first], tracks.world[first + 1], tracks.world[first + 2]];
      } else if (this.lift && depth) place = this.lift(number[n], xy[2 * n], xy[2 * n + 1], depth[n], pose, later);
      if (!place || !Number.isFinite(place[0])) continue;
      position.array.set(place, 3 * num);
      color.array.set(tracks.colors.subarray(3 * n, 3 * n + 3), 3 * num);
      num++;
    }
    this.cloud.geometry.setDrawRange(0, num);
    position.needsUpdate = color.needsUpdate = true;
  }

  lookThroughCamera(aspect) {
    const pose = this.poses.at(this.frame);
    if (!pose) return;
    const { eye, poses, clip } = this;
    new Matrix4().multiplyMatrices(this.root.matrix, pose).multiply(FLIP).decompose(eye.position, eye.quaternion, new Vector3());
    const wide = clip.width / clip.height > aspect; // the whole image stays in sight
    const tangent = Math.tan((poses.fov * Math.PI) / 360) * (wide ? clip.width / clip.height / aspect : 1);
    eye.fov = (360 / Math.PI) * Math.atan(tangent);
  }

  /** Of the scale bar, at the distance of what is looked at; null: none. */
  unit() {
    const metric = !this.inWorld || this.clip.facts.camera?.scale === "metric";
    return metric && this.view !== "camera" ? "m" : null;
  }
}
