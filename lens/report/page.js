// Folded parts are on paper as well; afterwards they are as they were.
const opened = [];
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details:not([open])")) {
    details.open = true;
    opened.push(details);
  }
});
addEventListener("afterprint", () => {
  for (const details of opened.splice(0)) details.open = false;
});

// A table that is wider than the page is scrolled by keys, too.
for (const box of document.querySelectorAll(".scroll")) {
  if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
}

// Contents beside the page are open, above it folded.
const contents = document.querySelector(".contents details");
const beside = matchMedia("(min-width: 1200px)");
const fold = () => {
  if (contents) contents.open = beside.matches;
};
beside.addEventListener("change", fold);
fold();
