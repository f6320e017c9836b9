// One card for RLM in JupyterLab's launcher. The kernelspecs of the places (rlm-local, rlm-docker, ...) have no card,
// and stay in the list of kernels of every notebook. JupyterLab has no field in a kernelspec for that, and no setting.
//
// A module-federation container, written by hand: it has one plugin, and no build.
globalThis._JUPYTERLAB = globalThis._JUPYTERLAB || {};
globalThis._JUPYTERLAB["rlm-kernel"] = (() => {
  const LAUNCHER = "@jupyterlab/launcher";
  let shared = {};

  function isPlace(item) {
    const provisioner = item.metadata?.kernel?.kernel_provisioner?.provisioner_name;
    return typeof provisioner === "string" && provisioner.startsWith("rlm-");
  }

  function hidePlaces(launcher) {
    const all = launcher.items.bind(launcher);
    launcher.items = function* () {
      for (const item of all()) {
        if (!isPlace(item)) yield item;
      }
    };
    launcher.stateChanged.emit();
  }

  async function extension() {
    const [provided] = Object.values(shared[LAUNCHER] ?? {});
    const optional = provided ? [(await provided.get())().ILauncher] : []; // Jupyter Notebook may have none
    const activate = (_, launcher) => launcher && hidePlaces(launcher);
    return () => ({ __esModule: true, default: { id: "rlm-kernel:launcher", autoStart: true, optional, activate } });
  }

  return {
    init: (scope) => {
      shared = scope;
    },
    get: extension,
  };
})();
