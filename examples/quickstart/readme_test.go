package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// TestReadme runs the program of README.md and compares what it prints with what README.md says.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	program := regexp.MustCompile("(?s)```go\n(.*?)```").FindSubmatch(readme)
	output := regexp.MustCompile("(?s)```text\n(.*?)```").FindSubmatch(readme)
	if program == nil || output == nil {
		t.Fatal("README.md has no program or no output")
	}
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, program[1], 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "run", file)
	cmd.Dir = "../.."
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the program of README.md: %v\n%s", err, out)
	}
	if string(out) != string(output[1]) {
		t.Errorf("the program of README.md prints\n%s\nnot\n%s", out, output[1])
	}
}
