from mtl_edge.benchmarks.gpu.command import main
from mtl_edge.cli.terminal import take_any_text

if __name__ == "__main__":
    take_any_text()
    main()
