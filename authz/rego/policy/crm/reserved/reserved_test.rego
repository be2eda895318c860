package crm.reserved_test

import data.crm.reserved

asks(id, roles) := {"subject": {"id": id, "roles": roles, "grants": []}}

test_allow_the_program if reserved.kept with input as asks("system", ["system"])

test_allow_other_roles if reserved.kept with input as asks("e1", ["sales", "manager"])

test_deny_another[name] if {
	some name, id in {"other": "e1", "empty": "", "case": "System", "null": null, "yes": true}
	not reserved.kept with input as asks(id, ["system"])
}

test_deny_another_beside_own_roles if not reserved.kept with input as asks("e1", ["sales", "system"])

test_deny_inherited if {
	not reserved.kept with input as asks("e1", ["boss"])
		with data.settings.inherits as {"boss": ["system"], "system": []}
}

test_deny_certified if {
	not reserved.kept with input as {
		"subject": {"id": "e1", "roles": ["system"], "grants": [{"role": "system", "until": 2}]},
		"environment": {"time": 1},
	}
		with data.settings.certified_roles as ["system"]
}

test_deny_nobody[name] if {
	some name, ask in {"empty": asks("", ["sales"]), "nothing": {}, "no subject": {"subject": {"roles": ["sales"]}}}
	not reserved.kept with input as ask
}

test_deny_without_settings if not reserved.kept with input as asks("e1", ["sales"]) with data.settings.reserved as null
