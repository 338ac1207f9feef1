"""Another engine as a child process that answers the commands of `voxgrain passes --serve`.

    fill N              the context becomes N tokens
    pass M K            one pass of M rows untimed, then K timed; the context stays
    step PATH T,T,...   runs tokens, writes all their logits (f32) to PATH
    rollback N          the context becomes its first N tokens
    memory              resident bytes now and at most, of which private
    generate SEED MOST T,T,...   speaks behind a prompt: tokens and microseconds

Between commands it only waits.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

END = 65536


def memory() -> dict:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    names = {"rss": "VmRSS", "peak": "VmHWM", "anon": "RssAnon"}
    return {k: int(fields[v].split()[0]) * 1024 for k, v in names.items()}


def now() -> float:
    """Microseconds."""
    return time.perf_counter_ns() / 1e3


def filler(first: int, count: int, vocabulary: int) -> np.ndarray:
    """Any tokens will do; all engines are given the same."""
    return ((np.arange(first, first + count) * 7919 + 13) % min(vocabulary, 65536)).astype(np.int64)


class LlamaCpp:
    """libllama through its C interface. Options are its defaults but for threads and sizes."""

    def __init__(self, args) -> None:
        import llama_cpp as lib

        self.lib = lib
        self._quiet = lib.llama_log_callback(lambda *_: None)
        lib.llama_log_set(self._quiet, None)
        lib.llama_backend_init()
        self.before = memory()
        start = now()
        self.context = self._load(args.model, args)
        self.load_us = now() - start
        self.loaded = memory()
        self.length = 0
        self._batch = lib.llama_batch_init(512, 0, 1)
        self.step(np.zeros(1, np.int64))
        self.first_us = now() - start
        self.first = memory()
        self.rollback(0)
        self.gamma, self.p_min = args.gamma, args.p_min
        self.draft = self._load(args.draft, args) if args.draft else None
        self.about = {"version": self._version(), "system": lib.llama_print_system_info().decode()}

    @staticmethod
    def _version() -> str:
        from importlib.metadata import version

        return f"llama-cpp-python {version('llama-cpp-python')}"

    def _load(self, path, args):
        lib = self.lib
        model = lib.llama_model_load_from_file(os.fsencode(path), lib.llama_model_default_params())
        if not model:
            raise RuntimeError(f"llama.cpp cannot load {path}")
        self.vocabulary = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
        p = lib.llama_context_default_params()
        p.n_ctx, p.n_batch, p.n_ubatch = args.positions, 512, 512
        p.n_threads = p.n_threads_batch = args.threads
        context = lib.llama_init_from_model(model, p)
        if not context:
            raise RuntimeError(f"llama.cpp makes no context for {path}")
        return context

    def _decode(self, context, tokens, at: int, wanted: int) -> None:
        b = self._batch
        count = len(tokens)
        for i, t in enumerate(tokens):
            b.token[i], b.pos[i], b.n_seq_id[i] = int(t), at + i, 1
            b.seq_id[i][0] = 0
            b.logits[i] = i >= count - wanted
        b.n_tokens = count
        if self.lib.llama_decode(context, b):
            raise RuntimeError("llama_decode failed")

    def _forget(self, context, length: int) -> None:
        self.lib.llama_memory_seq_rm(self.lib.llama_get_memory(context), 0, length, -1)

    def step(self, tokens, wanted: int | None = None) -> None:
        """The logits stay where llama.cpp puts them."""
        rows = len(tokens) if wanted is None else wanted
        self._decode(self.context, tokens, self.length, rows)
        self._logits = self.lib.llama_get_logits(self.context)
        self._rows = rows
        self.length += len(tokens)

    def logits(self) -> np.ndarray:
        flat = np.ctypeslib.as_array(self._logits, (self._rows, self.vocabulary))
        return flat.copy()

    def rollback(self, length: int) -> None:
        self._forget(self.context, length)
        self.length = min(length, self.length)

    def _sampler(self, seed: int):
        lib = self.lib
        chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_dist(seed))
        return chain

    def _draw(self, sampler, row: int) -> int:
        while True:
            token = self.lib.llama_sampler_sample(sampler, self.context, row)
            # The padding rows of the head are no tokens.
            if token <= END:
                return token

    def generate(self, seed: int, most: int, prompt) -> dict:
        sampler = self._sampler(seed)
        try:
            run = self._speculate if self.draft else self._plain
            return run(sampler, most, prompt)
        finally:
            self.lib.llama_sampler_free(sampler)

    def _plain(self, sampler, most, prompt) -> dict:
        self.rollback(0)
        start = now()
        self.step(prompt, 1)
        count, sampling, rounds = 0, 0.0, 0
        while True:
            at = now()
            token = self._draw(sampler, -1)
            sampling += now() - at
            if token == END or count == most:
                break
            count += 1
            self.step([token], 1)
            rounds += 1
        return {"tokens": count, "us": now() - start, "sampling_us": sampling, "rounds": rounds}

    def _speculate(self, sampler, most, prompt) -> dict:
        """The method of llama.cpp's speculative-simple: the draft proposes its likeliest tokens
        (none below p_min); the target draws at every place; a proposal that is what was drawn
        is kept, the first other draw replaces the rest."""
        lib, draft = self.lib, self.draft
        greedy = lib.llama_sampler_init_greedy()
        self.rollback(0)
        self._forget(draft, 0)
        start = now()
        text = [int(t) for t in prompt]
        self.step(text, 1)
        text.append(self._draw(sampler, -1))
        # The target has read all of `text` but its last token, the draft the first `have`.
        have, rounds, proposed, accepted, drafting = 0, 0, 0, 0, 0.0
        while text[-1] != END and len(text) < len(prompt) + most:
            at = now()
            known = len(text) - 1
            proposal, feed = [], text[have:]
            while len(proposal) < self.gamma:
                self._decode(draft, feed, have, 1)
                have += len(feed)
                guess = lib.llama_sampler_sample(greedy, draft, -1)
                if self.p_min > 0:
                    row = np.ctypeslib.as_array(lib.llama_get_logits(draft), (self.vocabulary,))
                    if np.exp(row - row[guess]).sum() > 1 / self.p_min:
                        break
                proposal.append(guess)
                feed = [guess]
            drafting += now() - at
            self.step([text[-1], *proposal])
            for i in range(len(proposal) + 1):
                token = self._draw(sampler, i)
                text.append(token)
                if token == END or i == len(proposal) or token != proposal[i]:
                    break
            rounds, proposed = rounds + 1, proposed + len(proposal)
            accepted += len(text) - 2 - known
            self.rollback(len(text) - 1)
            have = min(have, len(text) - 1)
            self._forget(draft, have)
        lib.llama_sampler_free(greedy)
        return {
            "tokens": len(text) - len(prompt) - (text[-1] == END),
            "us": now() - start,
            "drafting_us": drafting,
            "rounds": rounds,
            "proposed": proposed,
            "accepted": accepted,
        }


class OnnxRuntime:
    """A session whose cache is written in place, as onnxruntime-genai runs it."""

    def __init__(self, args) -> None:
        import onnxruntime as ort

        self.ort = ort
        self.before = memory()
        start = now()
        options = ort.SessionOptions()
        options.intra_op_num_threads = args.threads
        options.log_severity_level = 3
        # Threads spin within a pass and rest after it, or they would disturb the others.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self.session = ort.InferenceSession(str(args.model), options, providers=["CPUExecutionProvider"])
        cache = [i for i in self.session.get_inputs() if i.name.startswith("past_")]
        self._binding = self.session.io_binding()
        for i in cache:
            empty = np.zeros((1, i.shape[1], args.positions, i.shape[3]), np.float32)
            value = ort.OrtValue.ortvalue_from_numpy(empty)
            self._binding.bind_ortvalue_input(i.name, value)
            self._binding.bind_ortvalue_output(i.name.replace("past", "present"), value)
        self.vocabulary = self.session.get_outputs()[0].shape[2]
        self._outputs: dict[int, object] = {}
        self.load_us = now() - start
        self.loaded = memory()
        self.length = 0
        self.step(np.zeros(1, np.int64))
        self.first_us = now() - start
        self.first = memory()
        self.rollback(0)
        self.about = {"version": f"onnxruntime {ort.__version__}"}

    def step(self, tokens, wanted: int | None = None) -> None:
        count = len(tokens)
        rows = wanted or count
        if rows not in self._outputs:
            shape = (1, rows, self.vocabulary)
            self._outputs[rows] = self.ort.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, "cpu", 0)
        total = self.length + count
        b = self._binding
        b.bind_cpu_input("tokens", np.asarray(tokens, np.int64)[None])
        b.bind_cpu_input("last", np.array([total - 1], np.int32))
        b.bind_cpu_input("total", np.array(total, np.int32))
        b.bind_cpu_input("first", np.array([-rows], np.int64))
        b.bind_ortvalue_output("logits", self._outputs[rows])
        self.session.run_with_iobinding(b)
        self._logits = self._outputs[rows]
        self.length = total

    def logits(self) -> np.ndarray:
        return self._logits.numpy()[0]

    def rollback(self, length: int) -> None:
        self.length = min(self.length, length)

    def generate(self, seed: int, most: int, prompt) -> dict:
        rng = np.random.default_rng(seed)
        self.rollback(0)
        start = now()
        self.step(prompt, 1)
        count, sampling, rounds = 0, 0.0, 0
        while True:
            at = now()
            row = self.logits()[-1]
            sums = np.cumsum(np.exp(row - row.max()))
            token = int(np.searchsorted(sums, np.float32(rng.random()) * sums[-1], "right"))
            sampling += now() - at
            if token >= END or count == most:
                break
            count += 1
            self.step([token])
            rounds += 1
        return {"tokens": count, "us": now() - start, "sampling_us": sampling, "rounds": rounds}


ENGINES = {"llama.cpp": LlamaCpp, "onnxruntime": OnnxRuntime}


def numbers(text: str) -> np.ndarray:
    return np.array([int(t) for t in text.split(",")], np.int64)


def answer(engine, words) -> dict:
    match words:
        case ["fill", count]:
            engine.rollback(0)
            tokens = filler(0, int(count), engine.vocabulary)
            for at in range(0, len(tokens), 16):
                engine.step(tokens[at : at + 16], 1)
            return {"past": engine.length}
        case ["pass", rows, count]:
            past = engine.length
            tokens = filler(past, int(rows), engine.vocabulary)
            times = []
            for _ in range(int(count) + 1):
                engine.rollback(past)
                start = now()
                engine.step(tokens)
                times.append(now() - start)
            engine.rollback(past)
            return {"us": times[1:]}
        case ["step", path, tokens]:
            engine.step(numbers(tokens))
            rows = engine.logits()
            rows.astype("<f4").tofile(path)
            return {"rows": rows.shape[0], "columns": rows.shape[1]}
        case ["rollback", length]:
            engine.rollback(int(length))
            return {"past": engine.length}
        case ["memory"]:
            return memory()
        case ["generate", seed, most, tokens]:
            return engine.generate(int(seed), int(most), numbers(tokens))
    raise ValueError(f"unknown command {words}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--positions", type=int, default=1024)
    parser.add_argument("--draft", type=Path)
    parser.add_argument("--gamma", type=int, default=4)
    parser.add_argument("--p-min", type=float, default=0.0)
    args = parser.parse_args()
    # Libraries print where they like; answers alone go to the real standard output.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    engine = ENGINES[args.engine](args)
    hello = {"engine": args.engine, "threads": args.threads} | engine.about
    hello |= {"load_us": engine.load_us, "first_pass_us": engine.first_us}
    hello |= {"before": engine.before, "loaded": engine.loaded, "first": engine.first}
    print(json.dumps(hello), file=out)
    for line in sys.stdin:
        words = line.split()
        if words == ["quit"]:
            break
        if words:
            print(json.dumps(answer(engine, words)), file=out)


if __name__ == "__main__":
    main()
