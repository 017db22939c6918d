// The control API with the session of whoever sits at this page: its cookie, and Jupyter's XSRF
// check. No kernel takes part, so code that runs in one cannot accept anything here.

const API = "angelos/api";

export const connect = ({ ServerConnection }, { URLExt }) => {
  const settings = ServerConnection.makeSettings();

  const call = async (method, path, body) => {
    const url = URLExt.join(settings.baseUrl, API, path);
    // With `no-store` JupyterLab adds a parameter of its own, which the API does not know.
    const init = { method, cache: "no-cache" };
    if (body !== undefined) init.body = JSON.stringify(body);
    const response = await ServerConnection.makeRequest(url, init, settings);
    const answer = await response.json().catch(() => ({}));
    if (response.ok) return answer;
    const problem = new Error(answer.detail ?? response.statusText);
    problem.status = response.status;
    problem.changed = answer.changed ?? [];
    throw problem;
  };

  return {
    repos: async () => (await call("GET", "repos")).repos.map((repo) => repo.name),
    pending: async (repo, path) => {
      const query = new URLSearchParams({ path, limit: "100" });
      const answer = await call("GET", `repos/${encodeURIComponent(repo)}/pending?${query}`);
      return answer.pending;
    },
    // `verdict` is accept or reject; the digest says which version was looked at.
    review: (verdict, proposal, digest, hunks) =>
      call("POST", `proposals/${encodeURIComponent(proposal)}/${verdict}`, {
        digest,
        part: { hunks },
      }),
    // Call `changed` whenever the fate of a proposal changes; reconnect for ever.
    follow: (changed) => {
      const kinds = ["received", "narrowed", "merged", "rejected", "reverted", "promoted"];
      const query = new URLSearchParams({ kinds: kinds.map((k) => `proposal.${k}`).join(",") });
      const open = () => {
        const url = URLExt.join(settings.wsUrl, API, `events?${query}`);
        const socket = new settings.WebSocket(url);
        socket.onmessage = changed;
        socket.onopen = changed; // what happened while nobody listened
        socket.onclose = () => setTimeout(open, 5000);
      };
      open();
    },
  };
};
