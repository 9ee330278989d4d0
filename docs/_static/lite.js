// JupyterLite does not know the address of the site that contains it. The notebooks in it therefore
// link to "/site/page.html", and this script puts the address there before such a link is followed.
for (const event of ["pointerover", "focusin", "click"])
  document.addEventListener(event, ({ target }) => {
    const link = target.closest?.("a[href^='/site/']");
    if (link) link.href = new URL("../../" + link.getAttribute("href").slice(6), location).href;
  }, true);
