// The container that JupyterLab loads an extension from (module federation), written by hand: the
// extension is plain ES modules, so nothing is built. JupyterLab hands its own packages to `init`.

(() => {
  const base = document.currentScript.src;
  let shared;

  // Return JupyterLab's own copy of a package; the scope is name -> version -> {get}.
  const use = async (name) => {
    const versions = Object.values(shared[name] ?? {});
    if (versions.length === 0) throw new Error(`JupyterLab does not share ${name}`);
    const offered = versions.find((version) => version.loaded) ?? versions[0];
    return (await offered.get())();
  };

  const modules = {
    "./extension": async () => (await import(new URL("extension.js", base).href)).load(use),
    "./style": async () => {
      const link = document.createElement("link");
      link.rel = "stylesheet";
      link.href = new URL("overlay.css", base).href;
      document.head.append(link);
      return {};
    },
  };

  window._JUPYTERLAB = window._JUPYTERLAB ?? {};
  window._JUPYTERLAB.angelos = {
    init: (scope) => {
      shared = scope;
    },
    get: async (name) => {
      const module = await modules[name]();
      return () => module;
    },
  };
})();
