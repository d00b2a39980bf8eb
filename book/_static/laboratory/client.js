// The page's side of the worker: a question goes out with a number, its answer comes back as a promise.

export class Client {
  /** onEvent is told what the worker reports by itself: {about}, {loaded: variant} or {failed: text}. */
  constructor(onEvent) {
    this.pending = new Map();
    this.count = 0;
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.worker.onerror = (event) => onEvent({ failed: event.message || "worker.js cannot be had" });
    this.worker.onmessage = ({ data }) => (data.id === undefined ? onEvent(data) : this.#settle(data));
  }

  /**
   * Promise of a job's result. A job that names a panel is dropped when a newer one for the same panel comes before
   * it was begun; its promise then gives undefined.
   */
  ask(job) {
    const id = ++this.count;
    return new Promise((resolve, reject) => {
      this.pending.set(id, { resolve, reject });
      this.worker.postMessage({ ...job, id });
    });
  }

  #settle({ id, result, error }) {
    const { resolve, reject } = this.pending.get(id);
    this.pending.delete(id);
    if (error === undefined) resolve(result);
    else reject(new Error(error));
  }
}
