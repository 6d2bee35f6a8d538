//! Column names and JSON keys: what each means, however it is written.
//!
//! Case, `_`, `-` and blanks do not count. A name that is one letter off a known one is a slip of the hand: where it
//! would change how a machine is scanned it is an error, elsewhere a warning, and never dropped in silence.

/// What a column or a key says of one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    Machine,
    Name,
    Onboarding,
    Merged,
    ScanType,
    Comment,
    Priority,
    NotBefore,
    OnPending,
    Tenant,
    Window,
    Expires,
    Select,
}

impl Slot {
    /// Whether it asks for something that this version cannot do. Without it the machine would be scanned at another
    /// time than asked for.
    pub const fn is_unsupported(self) -> bool {
        matches!(self, Self::Window | Self::Expires | Self::Select)
    }
}

/// Every name that is understood: as messages show it, without what does not count, and its meaning. Where two of one
/// slot are present, the one that stands higher here counts: `id` may be anything next to a `machine_id`.
const NAMES: &[(&str, &str, Slot)] = &[
    ("machine_id", "machineid", Slot::Machine),
    ("Device ID", "deviceid", Slot::Machine),
    ("MdatpDeviceId", "mdatpdeviceid", Slot::Machine),
    ("id", "id", Slot::Machine),
    ("Device Name", "devicename", Slot::Name),
    ("computerDnsName", "computerdnsname", Slot::Name),
    ("name", "name", Slot::Name),
    ("Onboarding Status", "onboardingstatus", Slot::Onboarding),
    // Of the API, of advanced hunting, and of our own `machine list --json`.
    ("mergedIntoMachineId", "mergedintomachineid", Slot::Merged),
    ("MergedToDeviceId", "mergedtodeviceid", Slot::Merged),
    ("merged_into", "mergedinto", Slot::Merged),
    ("scan_type", "scantype", Slot::ScanType),
    ("comment", "comment", Slot::Comment),
    ("priority", "priority", Slot::Priority),
    ("not_before", "notbefore", Slot::NotBefore),
    ("on_pending", "onpending", Slot::OnPending),
    ("tenant", "tenant", Slot::Tenant),
    ("window", "window", Slot::Window),
    ("expires", "expires", Slot::Expires),
    ("select", "select", Slot::Select),
];

/// The names of a machine id, for messages.
pub const ID_NAMES: &str = "machine_id, MachineId, Device ID, DeviceId, MdatpDeviceId, id";

/// A name that is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub slot: Slot,
    /// Its place among the names: lower is preferred, and the same number is the same name.
    pub rank: usize,
}

/// What `name` means.
pub fn known(name: &str) -> Option<Known> {
    NAMES
        .iter()
        .enumerate()
        .find(|(_, (_, plain, _))| is(name, plain))
        .map(|(rank, (.., slot))| Known { slot: *slot, rank })
}

/// Whether `name` is `plain` but for what does not count.
pub fn is(name: &str, plain: &str) -> bool {
    counting(name).eq(plain.chars())
}

/// The characters of a name that count. A byte order mark is left in the middle where two files were glued together.
fn counting(name: &str) -> impl Iterator<Item = char> + '_ {
    name.chars().filter(|c| !c.is_whitespace() && !matches!(c, '_' | '-' | '\u{feff}')).map(|c| c.to_ascii_lowercase())
}

/// A name that is one letter off a known one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Near {
    /// An option that decides how or when a machine is scanned: without it the scan would be another one.
    Option(&'static str),
    /// Anything else.
    Else(&'static str),
}

impl Near {
    /// What may be meant.
    pub const fn meant(self) -> &'static str {
        match self {
            Self::Option(meant) | Self::Else(meant) => meant,
        }
    }
}

/// Which name `name`, that is not known, is one letter off: one too many, one missing, a wrong one, or two of them
/// exchanged. Names that real exports come close to are left out: those of a device (`Device IP`) and short ones.
pub fn near(name: &str) -> Option<Near> {
    nearest(
        name,
        NAMES
            .iter()
            .map(|(shown, plain, slot)| (*shown, *plain, *slot))
            .filter(|(_, plain, slot)| *slot != Slot::Name && plain.len() >= 6 && *plain != "deviceid"),
    )
    .map(|(meant, slot)| match slot {
        Slot::ScanType | Slot::Priority | Slot::NotBefore | Slot::OnPending => Near::Option(meant),
        _ => Near::Else(meant),
    })
}

/// The first of `names` (as it is shown, without what does not count, and anything) that `name` is one letter off.
pub fn nearest<T>(
    name: &str,
    names: impl IntoIterator<Item = (&'static str, &'static str, T)>,
) -> Option<(&'static str, T)> {
    // Nothing that is longer comes near.
    const LONGEST: usize = 32;
    let given: Vec<char> = counting(name).take(LONGEST).collect();
    names.into_iter().find(|(_, plain, _)| is_one_off(&given, plain)).map(|(shown, _, carried)| (shown, carried))
}

fn is_one_off(given: &[char], plain: &str) -> bool {
    if given.len().abs_diff(plain.len()) > 1 {
        return false;
    }
    let plain: Vec<char> = plain.chars().collect();
    let same = given.iter().zip(&plain).take_while(|(a, b)| a == b).count();
    let (given, plain) = (given.get(same..).unwrap_or_default(), plain.get(same..).unwrap_or_default());
    match (given, plain) {
        ([a, b, rest @ ..], [c, d, others @ ..]) if a == d && b == c && rest == others => true,
        ([_, rest @ ..], [_, others @ ..]) if rest == others => true,
        ([_, rest @ ..], others) if rest == others => true,
        (rest, [_, others @ ..]) => rest == others,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The columns of a portal export, of `DeviceInfo` in advanced hunting, the fields of the API's machines and of a
    /// machine action, and what the field reference of 2026 names beside them.
    const REAL: &str = "Device ID,Device Name,Domain,First Seen,Last device update,OS Platform,OS Distribution,OS Version,\
        OS Build,Windows 10 Version,Tags,Group,Is AAD Joined,Device IPs,Risk Level,Exposure Level,Health Status,\
        Onboarding Status,Device Role,Cloud Platforms,Managed By,Antivirus status,Is Internet Facing,Device AAD ID,\
        Criticality level,Device category,Device type,Device subtype,Sensor health state,Discovery sources,\
        Managed by status,Mitigation status,Exclusion state,Security operations,\
        Timestamp,DeviceId,DeviceName,ClientVersion,PublicIP,OSArchitecture,OSPlatform,OSBuild,IsAzureADJoined,JoinType,\
        AadDeviceId,LoggedOnUsers,RegistryDeviceTag,OSVersion,MachineGroup,ReportId,OnboardingStatus,AdditionalFields,\
        DeviceCategory,DeviceType,DeviceSubtype,Model,Vendor,OSDistribution,OSVersionInfo,MergedDeviceIds,\
        MergedToDeviceId,IsInternetFacing,SensorHealthState,IsExcluded,ExclusionReason,ExposureLevel,AssetValue,\
        DeviceManualTags,DeviceDynamicTags,ConnectivityType,HostDeviceId,ActionType,\
        id,mergedIntoMachineId,isPotentialDuplication,exclusionReason,computerDnsName,firstSeen,lastSeen,osProcessor,\
        osArchitecture,version,lastIpAddress,lastExternalIpAddress,agentVersion,healthStatus,deviceValue,rbacGroupId,\
        rbacGroupName,riskScore,isAadJoined,machineTags,managedBy,managedByStatus,ipAddresses,vmMetadata,\
        defenderAvStatus,ipAddress,macAddress,type,operationalStatus,\
        machineId,title,requestor,requestorComment,status,creationDateTimeUtc,lastUpdateDateTimeUtc,cancellationRequestor,\
        cancellationComment,cancellationDateTimeUtc,errorHResult,scope,externalId,requestSource,relatedFileInfo,commands,\
        troubleshootInfo,@odata.context,@odata.nextLink,@odata.count,value,Count,Schema,Results,Stats,\
        osKind,avMode,avSignatureVersion,avEngineVersion,avPlatformVersion,lastSeenTime,quickScanResult,quickScanError,\
        quickScanTime,fullScanResult,fullScanError,fullScanTime,dataRefreshTimestamp,Device IP,Windows,OS,IP,User";

    #[test]
    fn real_names_are_near_no_option() {
        for name in REAL.split(',').map(str::trim) {
            let expected = (name == "Windows").then_some(Near::Else("window"));
            assert_eq!(near(name).filter(|_| known(name).is_none()), expected, "{name}");
        }
        let known: Vec<_> = REAL.split(',').map(str::trim).filter(|name| known(name).is_some()).collect();
        assert_eq!(
            known,
            [
                "Device ID",
                "Device Name",
                "Onboarding Status",
                "DeviceId",
                "DeviceName",
                "OnboardingStatus",
                "MergedToDeviceId",
                "id",
                "mergedIntoMachineId",
                "computerDnsName",
                "machineId"
            ]
        );
    }

    #[test]
    fn case_and_separators_do_not_count() {
        for (shown, plain, slot) in NAMES {
            assert!(is(shown, plain), "{shown}");
            let spread: String = plain.chars().flat_map(|c| [' ', c.to_ascii_uppercase(), '-', '_']).collect();
            for name in [(*plain).to_owned(), plain.to_uppercase(), spread, format!("\u{feff}\t{shown}\u{a0}")] {
                assert_eq!(known(&name).map(|known| known.slot), Some(*slot), "{name}");
            }
        }
        assert_eq!(known("MachineId"), known("machine_id"));
        assert!(known("DeviceID").unwrap().rank < known("ID").unwrap().rank);
        for name in ["", "-", "device", "scan", "machine", "type", "AadDeviceId"] {
            assert_eq!(known(name), None, "{name}");
        }
    }

    #[test]
    fn one_letter_off_is_near_and_two_are_not() {
        for (name, expected) in [
            ("ScanTyp", Some(Near::Option("scan_type"))),
            ("scan_tpye", Some(Near::Option("scan_type"))),
            ("Scan Types", Some(Near::Option("scan_type"))),
            ("canType", Some(Near::Option("scan_type"))),
            ("scan_tipe", Some(Near::Option("scan_type"))),
            ("Not-Befor", Some(Near::Option("not_before"))),
            ("proirity", Some(Near::Option("priority"))),
            ("OnPendin", Some(Near::Option("on_pending"))),
            ("Comments", Some(Near::Else("comment"))),
            ("windwo", Some(Near::Else("window"))),
            ("machineids", Some(Near::Else("machine_id"))),
            ("OnboardingStatu", Some(Near::Else("Onboarding Status"))),
            ("ScanTy", None),
            ("cSanTyep", None),
            ("scan", None),
            ("ip", None),
            ("names", None),
            ("", None),
        ] {
            assert_eq!(near(name), expected, "{name}");
        }
    }
}
