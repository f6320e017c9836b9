// RLM in JupyterLab and Jupyter Notebook 7:
// - One card for RLM. The kernelspecs of the places (rlm-local, rlm-docker, ...) have no card in the launcher and no
//   entry in Notebook's New menu, and stay in the list of kernels of every notebook. There is no field in a kernelspec
//   for that, and no setting.
// - "Insert as cells" below a run: a front end inserts at most one cell for a kernel.
//
// A module-federation container, written by hand: it has two plugins, and no build.
globalThis._JUPYTERLAB = globalThis._JUPYTERLAB || {};
globalThis._JUPYTERLAB["rlm-kernel"] = (() => {
  const CELLS = "application/vnd.rlm.cells+json";
  const NEW = "notebook:create-new";
  let shared = {};

  async function provided(name) {
    const [version] = Object.values(shared[name] ?? {});
    return version ? (await version.get())() : {};
  }

  // -- one card

  function isPlace(kernel) {
    const provisioner = kernel?.kernel_provisioner?.provisioner_name;
    return typeof provisioner === "string" && provisioner.startsWith("rlm-");
  }

  function hideCards(launcher) {
    const all = launcher.items.bind(launcher);
    launcher.items = function* () {
      for (const item of all()) {
        if (!isPlace(item.metadata?.kernel)) yield item;
      }
    };
    launcher.stateChanged.emit();
  }

  function hideEntries(app) {
    const known = app.commands.isVisible.bind(app.commands);
    const metadata = (name) => app.serviceManager.kernelspecs?.specs?.kernelspecs[name]?.metadata;
    app.commands.isVisible = (id, args) =>
      known(id, args) && !(id === NEW && args?.isLauncher && isPlace(metadata(args.kernelName)));
  }

  // -- "Insert as cells"

  // The kernel finds the cells by replays. The name of the log is data: nothing of an output is run as code.
  async function cellsOf(kernel, log) {
    const line = `cells --data '${log.replaceAll("'", `'"'"'`)}'`;
    const code = `%load_ext rlm_magics\nget_ipython().run_line_magic("rlm", ${JSON.stringify(line)})`;
    const future = kernel.requestExecute({ code, store_history: false });
    let cells = [];
    let why = "";
    future.onIOPub = ({ content }) => {
      cells = content.data?.[CELLS]?.cells ?? cells;
      why = content.evalue ?? (content.name === "stderr" ? why + content.text : why);
    };
    await future.done;
    if (!cells.length) throw new Error(why || "the kernel gave no cells");
    return cells;
  }

  function buttonClass(Widget, tracker) {
    return class extends Widget {
      async renderModel(model) {
        const { log } = model.data[CELLS];
        if (typeof log !== "string") return;
        const button = document.createElement("button");
        button.textContent = "Insert as cells";
        button.title = "Put the cells that the answer needs below";
        button.className = "jp-mod-styled";
        button.style.fontSize = "12px";
        const said = document.createElement("span");
        said.setAttribute("role", "status");
        said.style.marginLeft = "8px";
        button.onclick = async () => {
          button.disabled = true;
          said.textContent = "The run is replayed to find the cells…";
          try {
            const count = await this.insert(log);
            said.textContent = `${count} cell${count === 1 ? "" : "s"} inserted`;
          } catch (error) {
            said.textContent = error.message;
          }
          button.disabled = false;
        };
        this.node.replaceChildren(button, said);
      }

      async insert(log) {
        const panel = tracker.find(({ content }) => content.node.contains(this.node));
        const kernel = panel?.sessionContext.session?.kernel;
        if (!kernel) throw new Error("This notebook has no kernel.");
        const cells = await cellsOf(kernel, log);
        const place = panel.content.widgets.findIndex(({ node }) => node.contains(this.node)) + 1;
        const made = cells.map((source) => ({ cell_type: "code", source: String(source), metadata: {} }));
        panel.content.model.sharedModel.insertCells(place, made);
        return cells.length;
      }
    };
  }

  async function extension() {
    const [{ ILauncher }, { INotebookTracker }, { IRenderMimeRegistry }, { Widget }] = await Promise.all(
      ["@jupyterlab/launcher", "@jupyterlab/notebook", "@jupyterlab/rendermime", "@lumino/widgets"].map(provided),
    );
    const launcher = {
      id: "rlm-kernel:launcher",
      autoStart: true,
      optional: [ILauncher].filter(Boolean), // Jupyter Notebook may have none
      activate: (app, found) => {
        hideEntries(app);
        if (found) hideCards(found);
      },
    };
    const cells = {
      id: "rlm-kernel:cells",
      autoStart: true,
      requires: [INotebookTracker, IRenderMimeRegistry],
      activate: (_, tracker, rendermime) => {
        const Button = buttonClass(Widget, tracker);
        rendermime.addFactory({ safe: false, mimeTypes: [CELLS], createRenderer: () => new Button() }, 0);
      },
    };
    const known = INotebookTracker && IRenderMimeRegistry && Widget;
    return () => ({ __esModule: true, default: known ? [launcher, cells] : [launcher] });
  }

  return {
    init: (scope) => {
      shared = scope;
    },
    get: extension,
  };
})();
