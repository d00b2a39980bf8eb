// Starts the laboratory where a browser can run it, and says what is wrong where it cannot. This is an ordinary
// script, not a module: it runs in old browsers, and from a file, where modules do not.

(function () {
  "use strict";
  const message = document.getElementById("lab-message");

  function refuse(text) {
    message.textContent = text;
    message.hidden = false;
  }

  if (location.protocol === "file:") {
    refuse(
      "This page was opened as a file, and a browser lets a file read no other: the models beside it stay out of " +
        "reach. Run “make serve” in the project's folder and open http://localhost:8000/laboratory.html instead.",
    );
  } else if (!("noModule" in HTMLScriptElement.prototype) || !window.fetch || !window.Worker) {
    refuse(
      "This browser is too old for the laboratory, which needs modules, workers and fetch. " +
        "Any current browser has them; the rest of the book does without.",
    );
  } else {
    const script = document.createElement("script");
    script.type = "module";
    script.src = new URL("laboratory.js", document.currentScript.src);
    script.onerror = () => refuse("The laboratory's script laboratory.js cannot be had from this server.");
    document.head.append(script);
  }
})();
