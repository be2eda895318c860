package vault

// ParseVersion reads the key version of a ciphertext.
var ParseVersion = parseVersion
