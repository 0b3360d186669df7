.PHONY: run test check bench soak show day power-cuts power-cuts-of-redis failpoints simulation seeded-faults

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

# Faults for as long as you like: MODE=embedded, redis, network, sentinels, cluster or primaries, SECONDS, SEED to repeat one.
soak:
	FAULTS_MODE=$(or $(MODE),redis) FAULTS_SECONDS=$(or $(SECONDS),600) $(and $(SEED),FAULTS_SEED=$(SEED)) \
		cargo test --release --locked --test it -- --ignored --exact faults::soak::as_long_as_asked --nocapture

# 20,000 keys by 32 clients each, while replicas and Redis are killed and paused, and while replies are lost.
show:
	FAULTS_KEYS=$(or $(KEYS),20000) $(and $(SEED),FAULTS_SEED=$(SEED)) \
		cargo test --release --locked --test it -- faults::show:: faults::lost_replies:: --nocapture --test-threads=1

# A day of TASKS tasks of all types and runners by USERS users over two replicas, two in five submissions duplicates, a replica
# or a worker killed about every KILL_EVERY_SECONDS.
day:
	TASKS=$(or $(TASKS),50000) USERS=$(or $(USERS),200) KILL_EVERY_SECONDS=$(or $(KILL_EVERY_SECONDS),60) \
		SUBMISSIONS_PER_SECOND=$(or $(SUBMISSIONS_PER_SECOND),110) $(and $(SEED),FAULTS_SEED=$(SEED)) \
		cargo test --release --locked --test it -- --ignored --exact faults::day::a_day_of_all_types_and_runners_adds_up --nocapture

# 10,000 power cuts of the embedded store, 1,000 of them cut once more while the store is opened.
power-cuts:
	$(and $(SEED),FAULTS_SEED=$(SEED)) \
		cargo test --release --locked --test it -- --ignored --exact faults::power::trials::the_embedded_store_survives_thousands_of_power_cuts --nocapture

# Hundreds of power cuts of a Redis that syncs each write, some cut once more while it loads, and of one that syncs each second.
power-cuts-of-redis:
	$(and $(SEED),FAULTS_SEED=$(SEED)) FAULTS_REDIS_CUTS=$(or $(CUTS),10) \
		cargo test --release --locked --test it -- --include-ignored faults::power::redis --nocapture --test-threads=1

# A build that can be told to end and to wait at named places, at each of them ROUNDS times.
failpoints:
	FAULTS_ROUNDS=$(or $(ROUNDS),1) $(and $(SEED),FAULTS_SEED=$(SEED)) \
		cargo test --locked --features seeded-faults,failpoints --test it -- faults::failpoints:: --nocapture --test-threads=1

# So many seeds of the simulated protocol, or one SEED of them with its trace. What the simulated replicas write down is
# kept in memory: nothing outlives a run.
simulation:
	$(and $(wildcard /dev/shm),TMPDIR=/dev/shm) SIMULATION_SEEDS=$(or $(SEEDS),5000) SIMULATION_FROM=$(or $(FROM),1) $(and $(SEED),SIMULATION_SEED=$(SEED)) \
		cargo test --locked --lib --config 'profile.dev.package."*".opt-level=2' \
		--config profile.dev.opt-level=2 -- store::redis::simulation:: --nocapture --test-threads=1

# Puts faults into the code, one after the other, and shows which test catches each.
seeded-faults:
	cargo test --locked --features seeded-faults,failpoints --test it -- --exact faults::seeded::each_fault_is_caught --nocapture
