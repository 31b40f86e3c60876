for (const formula of document.querySelectorAll(".arithmatex")) {
  const displayMode = formula.tagName === "DIV";
  const source = formula.textContent.trim().slice(2, -2); // between \( and \), or \[ and \]
  katex.render(source, formula, { displayMode, throwOnError: false });
}
