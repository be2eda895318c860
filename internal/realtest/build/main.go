// Command build builds the real servers that tests start, into the user's cache folder, where the tests
// look for them: go run ./internal/realtest/build vault.
package main

import (
	"fmt"
	"os"

	"github.com/crmguard/crmguard/internal/realtest"
)

func main() {
	if len(os.Args) != 2 || os.Args[1] != "vault" {
		fmt.Fprintln(os.Stderr, "usage: build vault")
		os.Exit(2)
	}
	path, err := realtest.Build("vaultd", true, "")
	if err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		os.Exit(1)
	}
	fmt.Println(path)
}
