// Light or dark colours: those of the system, of the notebook, or the user's choice.

const PLACE = "rlm-viewer-theme";

/** Start with the last choice of the user, else with the theme of the notebook. */
export function startTheme(host) {
  const chosen = remembered();
  if (chosen) host.dataset.theme = chosen;
  else adopt(host);
}

/** The other theme; says which. */
export function nextTheme(host) {
  const dark =
    getComputedStyle(host).colorScheme === "dark" ||
    (!host.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  host.dataset.theme = dark ? "light" : "dark";
  remember(host.dataset.theme);
  return host.dataset.theme;
}

/** JupyterLab and VS Code have themes of their own, which need not be the system's. */
function adopt(host) {
  const { body } = document;
  const look = () => {
    const light = body.dataset.jpThemeLight;
    const dark = light === "false" || body.classList.contains("vscode-dark");
    if (light || body.dataset.vscodeThemeKind) host.dataset.theme = dark ? "dark" : "light";
  };
  look();
  new MutationObserver(look).observe(body, { attributeFilter: ["data-jp-theme-light", "class"] });
}

// A sandboxed page has no storage, so the choice is lost with the page.
function remembered() {
  try {
    return localStorage.getItem(PLACE);
  } catch {
    return null;
  }
}

function remember(theme) {
  try {
    localStorage.setItem(PLACE, theme);
  } catch {
    // The theme is set for this page all the same.
  }
}
