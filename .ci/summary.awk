# Makes "go test -v" readable: one line a package, the whole output of those that
# failed, and each skipped test with its reason. With strict=1 a skip is a failure.
# Skipped seeds of fuzz targets do not count: a target may refuse an input.
/^=== / || /^(PASS|FAIL)$/ { next }
/^ *--- PASS/ { passed++; next }
/^ *--- SKIP: Fuzz/ { next }
/^ *--- SKIP/ { skipped++; skips = skips "  " $0 "\n      " reason "\n"; next }
/^\?/ || /\[no test files\]/ { next }
/^ok / { printf "%s\n%s", $0, skips; output = skips = ""; next }
/^FAIL\t/ { printf "%s%s\n", output, $0; failed++; output = skips = ""; next }
{ output = output $0 "\n"; reason = $0; sub(/^ +/, "", reason) }
END {
	printf "%s", output
	printf "%d passed, %d skipped, %d packages failed\n", passed, skipped, failed
	if (failed) exit 1
	if (strict && skipped) {
		print "as root every test has to run: the skipped ones above are failures"
		exit 1
	}
}
