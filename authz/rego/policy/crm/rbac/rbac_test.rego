package crm.rbac_test

import data.crm.rbac

sales := {"id": "e1", "roles": ["sales"], "team": "/east/1/"}

manager := {"id": "e2", "roles": ["manager"], "team": "/east/"}

customer(owner, team) := {"type": "customer", "owner": owner, "team": team}

asks(subject, action, resource) := {"subject": subject, "action": action, "resource": resource}

test_allow_own if rbac.permit with input as asks(sales, "read", customer("e1", "/east/1/"))

test_allow_team_of_manager if rbac.permit with input as asks(manager, "read", customer("e1", "/east/1/"))

test_allow_all_of_admin if {
	rbac.permit with input as asks({"id": "e9", "roles": ["admin"], "team": ""}, "delete", customer("e1", "/west/"))
}

test_manager_inherits_sales if {
	rbac.effective_roles == {"manager", "sales"} with input as {"subject": manager}
}

test_grounds_name_the_depth if {
	rbac.grounds == {"rbac.own"} with input as asks(sales, "read", customer("e1", "/east/1/"))
}

test_grounds_of_team if {
	rbac.grounds == {"rbac.team"} with input as asks(manager, "read", customer("e1", "/east/1/"))
}

test_grounds_of_all if {
	rbac.grounds == {"rbac.all"} with input as asks({"id": "e9", "roles": ["admin"]}, "read", customer("e1", "/west/"))
}

test_deny_other_owner if not rbac.permit with input as asks(sales, "read", customer("e3", "/east/1/"))

test_deny_owner_missing if not rbac.permit with input as asks(sales, "read", {"type": "customer"})

test_deny_no_owner_no_subject if {
	not rbac.permit with input as asks({"id": "", "roles": ["sales"], "team": ""}, "read", customer("", ""))
}

test_deny_other_team if not rbac.permit with input as asks(manager, "read", customer("e3", "/west/1/"))

test_deny_sibling_with_same_beginning if {
	subject := {"id": "e4", "roles": ["manager"], "team": "/east/1/"}
	not rbac.permit with input as asks(subject, "read", customer("e3", "/east/10/"))
}

test_deny_team_not_a_path[team] if {
	some team in ["", "east", "/east", "east/"]
	subject := {"id": "e4", "roles": ["manager"], "team": team}
	not rbac.permit with input as asks(subject, "read", customer("e3", "/east/10/"))
}

test_deny_unknown_role if {
	not rbac.permit with input as asks({"id": "e1", "roles": ["root"], "team": "/"}, "read", customer("e1", "/"))
}

test_deny_unknown_action if not rbac.permit with input as asks(sales, "shred", customer("e1", "/east/1/"))

test_deny_unknown_type if not rbac.permit with input as asks(sales, "read", {"type": "payroll", "owner": "e1"})

test_deny_no_roles if {
	not rbac.permit with input as asks({"id": "e1", "roles": [], "team": "/"}, "read", customer("e1", "/"))
}

test_allow_system if {
	rbac.permit with input as asks({"id": "system", "roles": ["system"], "team": ""}, "read", {"type": "account"})
}

test_deny_reserved_role_of_another[id] if {
	some id in ["e1", "", "System"]
	not rbac.permit with input as asks({"id": id, "roles": ["system"], "team": ""}, "read", {"type": "account"})
}
