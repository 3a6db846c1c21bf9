(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const themes = {{ themes|tojson }};
  const config = {
    responsive: true, displaylogo: false,
    displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false,
    modeBarButtons: [["toImage", "resetScale2d"]],
  };
  const drawn = [];
  const paint = () => {
    const t = themes[dark.matches ? "dark" : "light"];
    return { "font.color": t.ink, "hoverlabel.bgcolor": t.paper, "hoverlabel.font.color": t.ink };
  };
  const draw = (data) => {
    const div = document.getElementById(data.dataset.figure);
    if (drawn.includes(div)) return;
    drawn.push(div);
    const fig = JSON.parse(data.textContent), t = themes[dark.matches ? "dark" : "light"];
    fig.layout.font = { ...fig.layout.font, color: t.ink };
    fig.layout.hoverlabel = { ...fig.layout.hoverlabel, bgcolor: t.paper, font: { color: t.ink } };
    Plotly.newPlot(div, fig.data, fig.layout, config);
  };
  const all = [...document.querySelectorAll("script[data-figure]")];
  const near = new IntersectionObserver((entries) => {
    for (const e of entries) if (e.isIntersecting) {
      near.unobserve(e.target);
      draw(all.find((data) => data.dataset.figure === e.target.id));
    }
  }, { rootMargin: "1000px" });
  for (const data of all) near.observe(document.getElementById(data.dataset.figure));
  addEventListener("beforeprint", () => all.forEach(draw));
  dark.addEventListener("change", () => drawn.forEach((div) => Plotly.relayout(div, paint())));
})();
