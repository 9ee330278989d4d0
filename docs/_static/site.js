/* Blocks that scroll sideways can be reached with the keyboard, and their end fades. */
(() => {
  const chinese = document.documentElement.lang.startsWith("zh");
  const kinds = [
    ["article pre", "Code or output", "代码或输出"],
    ["article .table-wrapper", "Table", "表格"],
    ["article .katex-display", "Formula", "公式"],
    ["article .cell_output, article .wide-image", "Figure", "图"],
    ["article p:has(.katex), article dd > p", "Text", "正文"],
  ];
  const mark = (block, english, word) => {
    const scrolls = block.scrollWidth > block.clientWidth + 1 && getComputedStyle(block).overflowX !== "visible";
    if (scrolls !== block.classList.contains("scrolls")) {
      block.classList.toggle("scrolls", scrolls);
      const values = { tabindex: "0", role: "group", "aria-label": chinese ? `${word}（可横向滚动）` : `${english}, scrolls sideways` };
      for (const [name, value] of Object.entries(values)) {
        if (scrolls) block.setAttribute(name, value); else block.removeAttribute(name);
      }
    }
    const first = block.querySelector(":scope > table :is(td, th):first-child");
    block.classList.toggle("narrow-first", scrolls && first !== null && first.offsetWidth < 0.45 * block.clientWidth);
    block.classList.toggle("at-end", block.scrollLeft + block.clientWidth >= block.scrollWidth - 2);
  };
  document.addEventListener("DOMContentLoaded", () => {
    for (const [selector, english, word] of kinds) {
      for (const block of document.querySelectorAll(selector)) {
        const update = () => mark(block, english, word);
        new ResizeObserver(update).observe(block);
        block.addEventListener("scroll", update, { passive: true });
        document.fonts.addEventListener("loadingdone", update); // formulas change their width
      }
    }
    // The sidebar shows the current page.
    const place = document.querySelector(".sidebar-tree .current-page > a")?.getBoundingClientRect();
    if (place?.bottom > innerHeight) {
      document.querySelector(".sidebar-scroll").scrollTo({ top: place.top - innerHeight / 2, behavior: "instant" });
    }
  });
})();
