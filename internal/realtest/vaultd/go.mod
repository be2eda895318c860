module github.com/crmguard/crmguard/internal/realtest/vaultd

go 1.26.0
