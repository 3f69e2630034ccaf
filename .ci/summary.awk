# Makes "go test -v" readable: one line a package, the whole output of those that
# failed, and each skipped test with its reason. With strict=1 a skip is a failure,
# but for want of what the machine's kernel does not have (nettest.NotHere).
# Skipped seeds of fuzz targets do not count: a target may refuse an input.
/^=== (RUN|NAME|CONT) / { test = $3; next }
/^=== / || /^(PASS|FAIL)$/ { next }
/^ *--- PASS/ { passed++; next }
/^ *--- SKIP: Fuzz/ { next }
/^ *--- SKIP/ {
	skipped++
	if (reason[$3] !~ /: not on this machine: /) lacking++
	skips = skips "  " $0 "\n      " reason[$3] "\n"
	next
}
/^\?/ || /\[no test files\]/ { next }
/^ok / { printf "%s\n%s", $0, skips; output = skips = ""; split("", reason); next }
/^FAIL\t/ { printf "%s%s\n", output, $0; failed++; output = skips = ""; split("", reason); next }
{ output = output $0 "\n"; reason[test] = $0; sub(/^ +/, "", reason[test]) }
END {
	printf "%s", output
	printf "%d passed, %d skipped, %d packages failed\n", passed, skipped, failed
	if (failed) exit 1
	if (strict && lacking) {
		printf "as root every test has to run that can run here: %d of the skipped ones above are failures\n", lacking
		exit 1
	}
}
