// Command program is the hostile app: go run ./internal/hostile/program
package main

import (
	"os"

	"fiefdom/internal/hostile"
)

func main() { os.Exit(hostile.Main(os.Args[1:], os.Stdout, os.Stderr)) }
