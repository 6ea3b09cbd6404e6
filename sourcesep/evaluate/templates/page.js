"use strict";
// All tracks of a song play at once, synchronised; gains of 0 or 1 choose the ones that sound.
(() => {
  let context = null;
  let playing = null;

  const decode = (uri) => {
    const text = atob(uri.slice(uri.indexOf(",") + 1));
    return context.decodeAudioData(Uint8Array.from(text, (letter) => letter.charCodeAt(0)).buffer);
  };

  class Player {
    constructor(root) {
      this.root = root;
      this.button = root.querySelector(".play");
      this.seek = root.querySelector(".seek");
      this.clock = root.querySelector(".clock");
      this.length = Number(this.seek.max);
      this.at = 0;
      this.tracks = [...root.querySelectorAll(".picture")].map((picture) => {
        const row = picture.closest(".row");
        return { picture, row, stem: row.dataset.stem, bank: picture.dataset.bank, buffer: null, gain: null, source: null };
      });
      this.button.addEventListener("click", () => (this.isPlaying ? this.pause() : this.play()));
      this.seek.addEventListener("input", () => this.goTo(Number(this.seek.value)));
      root.querySelectorAll("input[type=radio]").forEach((input) => input.addEventListener("change", () => this.mix()));
      root.querySelectorAll(".solo, .mute").forEach((button) =>
        button.addEventListener("click", () => {
          button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
          this.mix();
        })
      );
      this.mix();
    }

    get isPlaying() {
      return playing === this;
    }

    pressed(row, kind) {
      const button = row.querySelector("." + kind);
      return button !== null && button.getAttribute("aria-pressed") === "true";
    }

    isAudible(track) {
      const bank = this.root.querySelector("input[type=radio]:checked").value;
      if (track.bank !== bank) return false;
      if (bank === "mixture") return true;
      const anySolo = this.tracks.some((other) => this.pressed(other.row, "solo"));
      return anySolo ? this.pressed(track.row, "solo") : !this.pressed(track.row, "mute");
    }

    mix() {
      for (const track of this.tracks) {
        const audible = this.isAudible(track);
        track.picture.classList.toggle("inaudible", !audible);
        if (track.gain) track.gain.gain.setTargetAtTime(audible ? 1 : 0, context.currentTime, 0.01);
      }
    }

    async play() {
      if (playing) playing.pause();
      playing = this;
      this.show();
      context = context || new AudioContext();
      await context.resume();
      this.output = this.output || new GainNode(context);
      this.output.connect(context.destination);
      await Promise.all(
        this.tracks.map(async (track) => {
          track.buffer = track.buffer || (await decode(track.picture.dataset.audio));
        })
      );
      if (playing !== this) return; // the user paused, or started another song, during decoding
      this.start();
      this.follow();
    }

    start() {
      this.began = context.currentTime + 0.02;
      this.from = this.at;
      for (const track of this.tracks) {
        track.gain = new GainNode(context, { gain: this.isAudible(track) ? 1 : 0 });
        track.source = new AudioBufferSourceNode(context, { buffer: track.buffer, loop: true, loopEnd: this.length });
        track.source.connect(track.gain).connect(this.output);
        track.source.start(this.began, this.at);
      }
    }

    stop() {
      for (const track of this.tracks) {
        if (track.source) track.source.stop();
        track.source = track.gain = null;
      }
    }

    pause() {
      this.stop();
      playing = null;
      this.show();
    }

    goTo(seconds) {
      this.at = Math.min(seconds, this.length - 0.05);
      if (this.tracks[0].source) {
        this.stop();
        this.start();
      }
      this.show();
    }

    follow() {
      if (!this.isPlaying) return;
      this.at = (this.from + Math.max(0, context.currentTime - this.began)) % this.length;
      this.seek.value = this.at;
      this.show();
      requestAnimationFrame(() => this.follow());
    }

    show() {
      this.root.classList.toggle("playing", this.isPlaying);
      this.root.classList.toggle("begun", this.at > 0);
      this.button.querySelector(".word").textContent = this.isPlaying ? "Pause" : "Play";
      this.button.setAttribute("aria-label", this.button.getAttribute("aria-label").replace(/^\w+/, this.isPlaying ? "Pause" : "Play"));
      this.clock.textContent = this.at.toFixed(1) + " s";
      this.root.querySelectorAll(".head").forEach((head) => (head.style.left = (100 * this.at) / this.length + "%"));
    }
  }

  document.querySelectorAll(".player").forEach((root) => (root.player = new Player(root)));
})();
