"""What a fresh process does on its way to a first answer; run as a file by `cold_start.py`.

    python fresh_process.py STARTED BUNDLE ENGINE THREADS FIXED_TOKENS TEXTS

STARTED is the monotonic clock when the process was made. FIXED_TOKENS and TEXTS may be `-`; TEXTS
is a JSON list of which 200 are answered one by one and 1,000 together, for the memory. Nothing is
imported that the runtime does not import, until the last figure is taken. Prints JSON.
"""

import time

ENTERED = time.monotonic()

SINGLE, BULK = 200, 1000


def memory() -> dict[str, float | None]:
    """Megabytes now and at most, of this process alone; none where the system does not tell."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            found = dict(line.split(":", 1) for line in file)
    except OSError:
        return {"now": None, "peak": None}
    # Not getrusage's: its peak is inherited from whoever started the process.
    return {name: int(found[field].split()[0]) * 1024 / 1e6
            for name, field in (("now", "VmRSS"), ("peak", "VmHWM"))}  # fmt: skip


def main() -> None:
    import sys

    started, bundle, engine, threads, fixed, texts = sys.argv[1:]
    marks = {"python": ENTERED - float(started)}
    last = time.monotonic()

    def mark(name: str) -> None:
        nonlocal last
        now = time.monotonic()
        marks[name] = now - last
        last = now

    from mtl_edge import EdgeClassifier

    mark("import mtl_edge")
    if engine != "auto":
        from importlib import import_module

        from mtl_edge.engines import ENGINES

        import_module(ENGINES[engine].module)
        mark("import engine")
    memories = {"imported": memory()}
    parts = watched_parts()
    last = time.monotonic()
    fixed_tokens = None if fixed == "-" else int(fixed)
    classifier = EdgeClassifier.load(
        bundle, engine=engine, threads=int(threads), fixed_tokens=fixed_tokens
    )
    mark("load")
    marks |= parts
    marks["warm up"] = marks["load"] - sum(parts.values())
    classifier.predict("a quiet triumph")
    mark("first answer")
    marks["whole"] = time.monotonic() - float(started)
    memories["loaded"] = memory()

    import json

    if texts != "-":
        with open(texts, encoding="utf-8") as file:
            given = json.load(file)
        for text in given[:SINGLE]:
            classifier.predict(text)
        many = (given * (BULK // len(given) + 1))[:BULK]
        classifier.predict_proba(many)
        memories["used"] = memory()
    print(json.dumps({
        "seconds": marks, "megabytes": memories, "engine": classifier.info.engine,
    }))  # fmt: skip


def watched_parts() -> dict[str, float]:
    """Seconds of each part of loading; filled in as they run."""
    from mtl_edge.cascade import opening
    from mtl_edge.tokens.encoder import TextEncoder

    seconds: dict[str, float] = {}

    def watch(owner: object, name: str, part: str) -> None:
        function = getattr(owner, name)

        def run(*args: object, **options: object) -> object:
            before = time.monotonic()
            result = function(*args, **options)
            seconds[part] = seconds.get(part, 0.0) + time.monotonic() - before
            return result

        setattr(owner, name, run)

    watch(opening, "open_bundle", "verify")
    watch(TextEncoder, "from_file", "tokenizer")
    watch(opening, "start_chosen", "start graph")
    return seconds


if __name__ == "__main__":
    main()
