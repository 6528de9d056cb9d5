// Draws every figure of the page from its JSON. Fixed text: nothing from a run ever becomes part of this script.
// Colours in the JSON are names of CSS variables ("--c-blue", "--c-blue-soft"); they are looked up here, so light,
// dark and print share one palette (style.css).
(function () {
  "use strict";
  var COLOR_KEYS = { color: true, fillcolor: true, bgcolor: true };
  var plots = Array.prototype.slice.call(document.querySelectorAll(".chart"));
  var touch = matchMedia("(pointer: coarse)").matches;
  var hovers = matchMedia("(hover: hover)").matches;  // without a pointer that hovers the bar would never hide
  var printing = false;

  function css(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function color(name) {
    var soft = /-soft$/.test(name);
    var value = css(soft ? name.slice(0, -5) : name);
    return soft ? value + "33" : value;
  }

  // A copy with every colour name replaced by its value in the current theme.
  function resolve(node, key) {
    if (Array.isArray(node)) return node.map(function (item) { return resolve(item, key); });
    if (node && typeof node === "object") {
      var copy = {};
      Object.keys(node).forEach(function (name) { copy[name] = resolve(node[name], name); });
      return copy;
    }
    return COLOR_KEYS[key] && typeof node === "string" && node.indexOf("--c-") === 0 ? color(node) : node;
  }

  // Traces in the colours of the theme; a Sankey diagram runs down a narrow page, where its labels have room.
  function traces(figure, width) {
    return resolve(figure.data).map(function (trace) {
      return trace.type === "sankey" && width < 480 ? Object.assign(trace, { orientation: "v" }) : trace;
    });
  }

  function axis(given) {
    var base = {
      gridcolor: color("--c-grid"), linecolor: color("--c-grid"), automargin: true, fixedrange: touch,
      ticks: "", nticks: 7, tickangle: 0
    };
    var merged = Object.assign(base, given);
    merged.title = Object.assign({ standoff: 10 }, given.title);
    merged.title.font = { size: 12, color: color("--c-quiet") };
    merged.tickfont = { size: 12, color: color("--c-quiet") };
    return merged;
  }

  function named(figure) {
    return figure.data.filter(function (trace) { return trace.showlegend !== false; });
  }

  // A long legend takes its lines from the plot, so a narrow figure grows with it; one with many rows says its height.
  function fit(plot, figure) {
    var more = plot.clientWidth < 480 ? named(figure).length - 3 : 0;
    var own = figure.layout.height ? figure.layout.height + "px" : "";
    plot.style.height = more > 0 ? "calc(" + (own || "300px") + " + " + more + "rem)" : own;
  }

  function layout(figure, width, height) {
    var narrow = width < 480;
    var result = Object.assign({}, resolve(figure.layout));
    Object.keys(result).forEach(function (name) {
      if (/^[xy]axis/.test(name)) result[name] = axis(result[name]);
    });
    if (narrow && result.xaxis) {
      result.xaxis.nticks = 5;
      if (result.xaxis.tickvals && result.xaxis.tickvals.length > 4) {
        result.xaxis.tickvals = result.xaxis.tickvals.filter(function (_, i) { return i % 2 === 0; });
        result.xaxis.ticktext = result.xaxis.ticktext.filter(function (_, i) { return i % 2 === 0; });
      }
    }
    var size = narrow ? 11 : 12;
    result.annotations = (result.annotations || []).map(function (note) {
      var font = Object.assign({ size: size }, note.font);
      return Object.assign({ bgcolor: color("--c-card"), borderpad: 1, opacity: 0.95 }, note, { font: font });
    });
    var shown = named(figure);
    return Object.assign(result, {
      width: width, height: height, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: color("--c-ink") },
      margin: { l: 8, r: 14, t: shown.length > 1 ? 34 : 28, b: 8 },
      showlegend: shown.length > 1,
      legend: {
        orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", traceorder: "normal",
        font: { size: size, color: color("--c-ink") }, bgcolor: "rgba(0,0,0,0)", itemclick: "toggle"
      },
      hoverlabel: {
        bgcolor: color("--c-card"), bordercolor: color("--c-grid"),
        font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: color("--c-ink") },
        namelength: -1
      },
      modebar: { bgcolor: color("--c-card"), color: color("--c-quiet"), activecolor: color("--c-ink") },
      dragmode: touch ? false : "zoom"
    });
  }

  function draw(plot) {
    var figure = JSON.parse(document.getElementById(plot.dataset.figure).textContent);
    var config = {
      displaylogo: false, displayModeBar: hovers && !printing ? "hover" : false, scrollZoom: false, showTips: false,
      modeBarButtons: [["toImage", "resetScale2d"]], showSendToCloud: false, plotlyServerURL: "",
      toImageButtonOptions: { scale: 2, filename: plot.parentNode.id }
    };
    plot.textContent = "";
    fit(plot, figure);
    if (!figure.data.length) return;
    Plotly.newPlot(plot, traces(figure, plot.clientWidth), layout(figure, plot.clientWidth, plot.clientHeight), config);
  }

  function restyle() {
    plots.forEach(function (plot) {
      var figure = JSON.parse(document.getElementById(plot.dataset.figure).textContent);
      fit(plot, figure);
      if (!figure.data.length) return;
      Plotly.react(plot, traces(figure, plot.clientWidth), layout(figure, plot.clientWidth, plot.clientHeight));
    });
  }

  // A menu of explore.js chose other data for a figure.
  plots.forEach(function (plot) { plot.addEventListener("kvsim-draw", function () { draw(plot); }); });

  // One figure a task, so the text of the page answers while figures appear.
  var next = 0;
  function drawNext() {
    if (next < plots.length) { draw(plots[next++]); setTimeout(drawNext, 0); return; }
    document.documentElement.dataset.figures = "ready";
  }
  drawNext();

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);
  var timer = 0, lastWidth = window.innerWidth;
  window.addEventListener("resize", function () {
    if (printing || window.innerWidth === lastWidth) return;  // phones change the height while scrolling
    lastWidth = window.innerWidth;
    clearTimeout(timer);
    timer = setTimeout(restyle, 120);
  });

  // On paper: open what is folded, and draw again in the printed size and colours.
  var folded = [];
  matchMedia("print").addEventListener("change", function (change) {
    printing = change.matches;
    if (printing) {
      folded = Array.prototype.filter.call(document.querySelectorAll("details"), function (d) { return !d.open; });
      folded.forEach(function (d) { d.open = true; });
    } else {
      folded.forEach(function (d) { d.open = false; });
    }
    restyle();
  });
})();
