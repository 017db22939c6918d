// Pending edits in JupyterLab: what agents and people have proposed for the open notebook or file,
// beside the text that it would change. Nothing of it is in the document until it is accepted.

import { connect } from "./api.js";
import { Overlay } from "./overlay.js";

// Keys and clicks in a card are not the notebook's: it would select another cell, or run a command.
// Nor does a click take the focus from the cell in which somebody types.
const keepApart = () => {
  for (const name of ["keydown", "mousedown", "mouseup", "dblclick"]) {
    const apart = (event) => {
      if (!event.target.closest?.(".angelos-card")) return;
      event.stopPropagation();
      if (name === "mousedown" && event.target.closest("button")) event.preventDefault();
    };
    window.addEventListener(name, apart, { capture: true });
  }
};

export const load = async (use) => {
  const [notebook, editor, services, coreutils, widgets] = await Promise.all(
    [
      "@jupyterlab/notebook",
      "@jupyterlab/fileeditor",
      "@jupyterlab/services",
      "@jupyterlab/coreutils",
      "@lumino/widgets",
    ].map(use),
  );

  const plugin = {
    id: "angelos:pending",
    description: "Shows pending edits, and lets a person accept or reject them one by one.",
    autoStart: true,
    optional: [notebook.INotebookTracker, editor.IEditorTracker],
    activate: (app, notebooks, editors) => {
      const api = connect(services, coreutils);
      const open = new Set();
      keepApart();
      const add = (_, panel) => {
        const overlay = new Overlay(panel, api, widgets.Widget);
        open.add(overlay);
        panel.disposed.connect(() => {
          overlay.dispose();
          open.delete(overlay);
        });
      };
      for (const tracker of [notebooks, editors]) {
        tracker?.widgetAdded.connect(add);
        tracker?.forEach((panel) => add(tracker, panel));
      }
      app.restored.then(() => api.follow(() => open.forEach((overlay) => overlay.refresh())));
    },
  };
  return { __esModule: true, default: [plugin] };
};
