// Counts down to the moments that the page names (`data-countdown`), between two refreshes of the page.
(() => {
  "use strict";
  function remaining(seconds) {
    if (seconds < 60) return `${seconds} s`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
    return `${Math.floor(seconds / 60)} min`;
  }
  setInterval(() => {
    for (const time of document.querySelectorAll("time[data-countdown]")) {
      const left = Math.max(0, Math.round((Date.parse(time.dateTime) - Date.now()) / 1000));
      time.textContent = remaining(left);
    }
  }, 1000);
})();
