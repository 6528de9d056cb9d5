// Menus that choose among a figure's data, and tables to sort and filter. Fixed text: data only ever becomes the text
// of an element, never part of this script or of the page's markup.
(function () {
  "use strict";

  // A menu: show the data whose id is the figure's key and the chosen options.
  Array.prototype.forEach.call(document.querySelectorAll(".menus"), function (menus) {
    var figure = menus.parentNode, plot = figure.querySelector(".chart"), finding = figure.querySelector(".finding");
    var list = figure.querySelector(".items"), selects = menus.querySelectorAll("select");
    menus.addEventListener("change", function () {
      var picked = Array.prototype.map.call(selects, function (select) { return select.value; });
      var data = document.getElementById([menus.dataset.of].concat(picked, "data").join("-"));
      finding.textContent = data.dataset.finding || data.dataset.empty;
      plot.setAttribute("aria-label", figure.querySelector("h3").textContent + ". " + finding.textContent);
      var items = JSON.parse(data.dataset.items);
      list.textContent = "";
      list.hidden = !items.length;
      items.forEach(function (text) {
        list.appendChild(document.createElement("li")).textContent = text;
      });
      plot.dataset.figure = data.id;
      plot.dispatchEvent(new Event("kvsim-draw"));
    });
  });

  // What a filter asks for: "<5", ">= 3", "=4", "1..8" for numbers, else words that the cell has.
  function matcher(text) {
    var wanted = text.trim().toLowerCase();
    var compare = /^(<=|>=|<|>|=)\s*(-?[\d.]+(?:e[+-]?\d+)?)$/.exec(wanted);
    var between = /^(-?[\d.]+)\s*\.\.\s*(-?[\d.]+)$/.exec(wanted);
    if (compare) {
      var limit = Number(compare[2]), sign = compare[1];
      return function (cell) {
        var v = cell.dataset.v === undefined ? NaN : Number(cell.dataset.v);
        return sign === "<" ? v < limit : sign === "<=" ? v <= limit : sign === ">" ? v > limit
          : sign === ">=" ? v >= limit : v === limit;
      };
    }
    if (between) {
      return function (cell) {
        return cell.dataset.v !== undefined && Number(cell.dataset.v) >= Number(between[1])
          && Number(cell.dataset.v) <= Number(between[2]);
      };
    }
    return function (cell) { return cell.textContent.toLowerCase().indexOf(wanted) >= 0; };
  }

  function order(a, b) {
    var x = a.dataset.v, y = b.dataset.v;
    if (x !== undefined && y !== undefined) return Number(x) - Number(y);
    if (x !== undefined || y !== undefined) return x !== undefined ? -1 : 1;  // what has no number comes last
    return a.textContent.localeCompare(b.textContent);
  }

  Array.prototype.forEach.call(document.querySelectorAll("table.filtered"), function (table) {
    var body = table.tBodies[0], rows = Array.prototype.slice.call(body.rows), head = table.tHead;
    var count = table.closest(".sheet").querySelector(".count"), heads = Array.prototype.slice.call(head.rows[0].cells);
    var filters = head.insertRow();
    filters.className = "filters";
    heads.forEach(function (cell, column) {
      var name = cell.textContent, button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      cell.textContent = "";
      cell.appendChild(button);
      cell.setAttribute("aria-sort", "none");
      button.addEventListener("click", function () {
        var down = cell.getAttribute("aria-sort") === "ascending";
        heads.forEach(function (other) { other.setAttribute("aria-sort", "none"); });
        cell.setAttribute("aria-sort", down ? "descending" : "ascending");
        var sorted = rows.slice().sort(function (a, b) {
          var x = a.cells[column], y = b.cells[column];
          if (x.dataset.v === undefined || y.dataset.v === undefined) return order(x, y);
          return down ? order(y, x) : order(x, y);
        });
        sorted.forEach(function (row) { body.appendChild(row); });
      });
      var input = document.createElement("input");
      input.type = "search";
      var numeric = rows.length && rows[0].cells[column].dataset.v !== undefined;
      input.placeholder = numeric ? "< 5" : "filter";
      input.setAttribute("aria-label", "Filter " + name);
      input.addEventListener("input", apply);
      var holder = document.createElement("th");
      holder.appendChild(input);
      filters.appendChild(holder);
    });

    function apply() {
      var wanted = Array.prototype.map.call(filters.cells, function (cell) {
        return cell.firstChild.value.trim() ? matcher(cell.firstChild.value) : null;
      });
      var shown = 0;
      rows.forEach(function (row) {
        row.hidden = wanted.some(function (ok, column) { return ok && !ok(row.cells[column]); });
        shown += row.hidden ? 0 : 1;
      });
      count.textContent = shown === rows.length ? rows.length + " rows" : shown + " of " + rows.length + " rows";
    }
  });
})();
