(() => {
  const { palettes, plots } = JSON.parse(document.getElementById("plots").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paint = (node, colours) => {
    if (typeof node === "string") return Object.hasOwn(colours, node) ? colours[node] : node;
    if (Array.isArray(node)) return node.map((item) => paint(item, colours));
    if (node && typeof node === "object")
      return Object.fromEntries(Object.entries(node).map(([key, value]) => [key, paint(value, colours)]));
    return node;
  };
  const settings = { displayModeBar: false, responsive: true, showTips: false };
  const draw = () => {
    const colours = palettes[dark.matches ? "dark" : "light"];
    for (const [name, plot] of Object.entries(plots))
      Plotly.react(document.getElementById(name), paint(plot.data, colours), paint(plot.layout, colours), settings);
  };
  dark.addEventListener("change", draw);
  draw();
})();
