package crm.obligations_test

import data.crm.obligations

test_reveal_needs_a_reason if obligations.needed == {"reason"} with input as {"action": "reveal"}

test_export_needs_a_reason if obligations.needed == {"reason"} with input as {"action": "export"}

test_read_needs_nothing if obligations.needed == set() with input as {"action": "read"}
