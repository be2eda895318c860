// Command build builds the real servers that tests start, into the user's cache folder, where the tests
// look for them: go run ./internal/realtest/build vault, s3 or oidc.
package main

import (
	"fmt"
	"os"

	"github.com/crmguard/crmguard/internal/realtest"
)

func main() {
	modules := map[string]string{"vault": "vaultd", "s3": "s3d", "oidc": "oidcd"}
	if len(os.Args) != 2 || modules[os.Args[1]] == "" {
		fmt.Fprintln(os.Stderr, "usage: build vault | s3 | oidc")
		os.Exit(2)
	}
	path, err := realtest.Build(modules[os.Args[1]], true, "")
	if err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		os.Exit(1)
	}
	fmt.Println(path)
}
