-- Actions whose status sweepd does not know: few, and shown in `status`.
CREATE INDEX actions_of_unknown_status ON actions (tenant_id, status)
    WHERE status NOT IN ('Pending', 'InProgress', 'Succeeded', 'Failed', 'TimeOut', 'Cancelled', 'Gone');
