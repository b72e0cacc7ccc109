from mtl_edge.benchmarks.limits.command import main

if __name__ == "__main__":
    main()
