// A ball-and-stick viewer on a canvas: drag turns, the wheel zooms, a double click resets.
// It runs once for each element with data-molecules="<key>" and needs nothing from the network.
(function (key) {
  for (const root of document.querySelectorAll(`[data-molecules="${key}"]:not([data-ready])`)) {
    root.dataset.ready = "yes";
    start(root);
  }

  function start(root) {
    const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
    const canvas = root.querySelector("canvas");
    const caption = root.querySelector("[data-caption]");
    const cards = [...root.querySelectorAll("[data-card]")];
    let shown = 0, turn, zoom;

    const reset = () => { turn = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]; zoom = 1; };
    const select = (index) => {
      shown = index;
      cards.forEach((card, i) => { card.style.outline = i === index ? "2px solid #4c78dd" : "none"; });
      caption.textContent = data.molecules[index].caption;
      reset();
      draw();
    };
    const draw = () => paint(canvas, data.molecules[shown], data.palette, turn, zoom);

    cards.forEach((card, i) => card.addEventListener("click", () => select(i)));
    canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
    canvas.addEventListener("pointermove", (event) => {
      if (!event.buttons) return;
      turn = product(rotation(event.movementX / 90, event.movementY / 90), turn);
      draw();
    });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      zoom = Math.min(6, Math.max(0.3, zoom * Math.exp(-event.deltaY / 600)));
      draw();
    }, { passive: false });
    canvas.addEventListener("dblclick", () => { reset(); draw(); });
    select(0);
  }

  function rotation(yaw, pitch) {
    const [c, s, d, t] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
    return [[c, 0, s], [t * s, d, -t * c], [-d * s, t, d * c]];
  }

  function product(a, b) {
    return a.map((row) => [0, 1, 2].map((j) => row.reduce((sum, v, k) => sum + v * b[k][j], 0)));
  }

  function paint(canvas, molecule, palette, turn, zoom) {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    [canvas.width, canvas.height] = [width * ratio, height * ratio];
    const pen = canvas.getContext("2d");
    const scale = ratio * zoom * Math.min(width, height) / (2 * molecule.radius);
    pen.setTransform(scale, 0, 0, -scale, ratio * width / 2, ratio * height / 2);
    pen.lineCap = "butt";

    const at = molecule.positions.map((p) => turn.map((row) => row.reduce((s, v, k) => s + v * p[k], 0)));
    const items = at.map((p, i) => [p[2], () => ball(pen, p, palette[molecule.z[i]], molecule.marked[i])]);
    for (const [i, j, order] of molecule.bonds) {
      const middle = at[i].map((v, k) => (v + at[j][k]) / 2);
      for (const a of [i, j]) {
        const [paint, size] = palette[molecule.z[a]];
        const inside = Math.min(1, 0.92 * size / Math.hypot(...middle.map((v, k) => v - at[a][k])));
        const from = at[a].map((v, k) => v + inside * (middle[k] - v));
        items.push([(from[2] + middle[2]) / 2, () => stick(pen, from, middle, order, paint)]);
      }
    }
    items.sort((a, b) => a[0] - b[0]).forEach(([, show]) => show());
  }

  function ball(pen, [x, y], [paint, size], marked) {
    const disc = (r, fill) => {
      pen.beginPath(); pen.arc(x, y, r, 0, 7); pen.fillStyle = fill; pen.fill();
    };
    if (marked) disc(1.4 * size, "#ff2fa0");
    const glow = pen.createRadialGradient(x - 0.3 * size, y + 0.36 * size, 0.05 * size, x, y, size);
    [[0, shade(paint, 0.85)], [0.35, shade(paint, 0.2)], [0.8, paint], [1, shade(paint, -0.3)]]
      .forEach(([stop, tone]) => glow.addColorStop(stop, tone));
    disc(1.06 * size, shade(paint, -0.6));
    disc(size, glow);
  }

  function stick(pen, [ax, ay], [bx, by], order, paint) {
    const length = Math.hypot(bx - ax, by - ay) || 1;
    const [nx, ny] = [(ay - by) / length, (bx - ax) / length];
    const half = [0, 0.1, 0.062, 0.05][order];
    for (const shift of [[], [0], [-0.11, 0.11], [-0.15, 0, 0.15]][order]) {
      for (const [width, tone] of [[2.6, -0.6], [2, -0.1], [0.8, 0.4]]) {
        pen.beginPath();
        pen.moveTo(ax + shift * nx, ay + shift * ny);
        pen.lineTo(bx + shift * nx, by + shift * ny);
        pen.lineWidth = width * half;
        pen.strokeStyle = shade(paint, tone);
        pen.stroke();
      }
    }
  }

  function shade(paint, amount) { // towards white (amount > 0) or black
    const goal = amount > 0 ? 255 : 0, part = Math.abs(amount);
    const mixed = [1, 3, 5].map((i) => parseInt(paint.slice(i, i + 2), 16) * (1 - part) + goal * part);
    return `rgb(${mixed.map(Math.round).join()})`;
  }
})
