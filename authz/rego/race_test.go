//go:build race

package rego

const raced = true
