function render({ model, el }) {
  const picture = document.createElement("img");
  Object.assign(picture, { draggable: false, className: "reidlib-clickable" });
  Object.assign(picture.style, { maxWidth: "100%", cursor: "crosshair", touchAction: "none" });
  const show = () => { picture.src = URL.createObjectURL(new Blob([model.get("png")], { type: "image/png" })); };
  const place = (event) => {
    const box = picture.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  let start = [0, 0];
  picture.addEventListener("pointerdown", (event) => {
    start = place(event);
    picture.setPointerCapture(event.pointerId);
  });
  picture.addEventListener("pointerup", (event) => {
    model.set("drag", [...start, ...place(event)]);
    model.save_changes();
  });
  model.on("change:png", show);
  show();
  el.appendChild(picture);
}
export default { render };
