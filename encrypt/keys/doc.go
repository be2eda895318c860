// Package keys is what an encrypt.Keeper stands on: the key encryption key of a key service, the store
// of wrapped keys, and the errors that both and the Keeper share. Whoever writes a KEK or a key store
// of their own imports this package and proves it by the suites of encrypttest; whoever only seals and
// opens needs nothing of it but [NewMemory] for a first try.
//
// No record here holds a key in the clear. Wrapped keys are destroyed by overwriting and deleting
// them, so a store must be able to forget: see encrypt/sqlstore.
package keys
