.PHONY: run test check bench

# Serves on 127.0.0.1:8080 with ./data.
run:
	cargo run --release

# Installs what the tests need and runs them all.
test:
	./tests/setup.sh
	./tests/run.sh

# What continuous integration runs.
check:
	./.ci/run

# Prints ratios to the limit of this machine; no verdicts.
bench:
	cargo bench --bench load
