//! What a guest may choose of its hart by the SBI's firmware features (FWFT), and what it chose.
//!
//! Each feature is a field of `henvcfg` of one hart. It starts anew when the hart starts, and
//! outlives a suspension (R74).

use sbi_spec::binary::Error;
use sbi_spec::fwft::feature_type::{
    DOUBLE_TRAP, LANDING_PAD, MISALIGNED_EXC_DELEG, POINTER_MASKING_PMLEN, PTE_AD_HW_UPDATING,
    SHADOW_STACK,
};
use sbi_spec::fwft::flags::SetFlags;

use crate::features::{AdUpdates, Choices, Henvcfg};

/// Where `henvcfg.PMM` is.
const PMM_SHIFT: u32 = 32;

/// A feature's value, and whether it is final.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Feature {
    value: usize,
    locked: bool,
}

/// The features of one hart.
#[derive(Clone, Debug)]
pub struct FirmwareFeatures {
    choices: Choices,
    ad_updates: Feature,
    pointer_masking: Feature,
}

impl FirmwareFeatures {
    /// The features of a hart that starts. `choices` is what the machine lets a guest choose.
    pub fn new(choices: Choices) -> Self {
        let ad_updates = Feature {
            value: usize::from(choices.ad_updates == AdUpdates::Always),
            locked: false,
        };
        Self {
            choices,
            ad_updates,
            pointer_masking: Feature::default(),
        }
    }

    /// Returns `henvcfg` for the hart: the bits of `granted` that the guest chose, and the pointer
    /// mask.
    pub fn henvcfg(&self, granted: Henvcfg) -> u64 {
        let mut henvcfg = granted;
        henvcfg.set(Henvcfg::ADUE, self.ad_updates.value != 0);
        let masking = match self.pointer_masking.value {
            0 => 0,
            7 => 2,
            _ => 3,
        };
        (henvcfg & granted).bits() | masking << PMM_SHIFT
    }

    /// `sbi_fwft_get`: the value of `feature`.
    ///
    /// # Errors
    ///
    /// - `NotSupported`: this machine lacks the feature.
    /// - `Denied`: the specification does not define it.
    pub fn get(&self, feature: usize) -> Result<usize, Error> {
        match feature {
            PTE_AD_HW_UPDATING if self.choices.ad_updates != AdUpdates::Never => {
                Ok(self.ad_updates.value)
            }
            POINTER_MASKING_PMLEN if self.choices.masks_pointers() => {
                Ok(self.pointer_masking.value)
            }
            _ => Err(absent(feature)),
        }
    }

    /// `sbi_fwft_set`: sets `feature`, for good if `flags` has the lock. The caller then writes
    /// [`henvcfg`](Self::henvcfg) anew.
    ///
    /// # Errors
    ///
    /// The feature keeps its value. The errors are those of [`get`](Self::get), and:
    /// - `DeniedLocked`: the feature is locked.
    /// - `InvalidParam`: the value or the flags are not defined.
    /// - `Denied`: this machine does not have the value.
    pub fn set(&mut self, feature: usize, value: usize, flags: usize) -> Result<(), Error> {
        self.get(feature)?;
        let flags = SetFlags::from_bits(flags).ok_or(Error::InvalidParam)?;
        let is_pointer_masking = feature == POINTER_MASKING_PMLEN;
        let new = if is_pointer_masking {
            self.choices.pointer_masking(value)?
        } else {
            match (value, self.choices.ad_updates) {
                (0, AdUpdates::Always) => return Err(Error::Denied),
                (0 | 1, _) => value,
                _ => return Err(Error::InvalidParam),
            }
        };
        let old = if is_pointer_masking {
            &mut self.pointer_masking
        } else {
            &mut self.ad_updates
        };
        if old.locked {
            return Err(Error::DeniedLocked);
        }
        *old = Feature {
            value: new,
            locked: flags.contains(SetFlags::LOCK),
        };
        Ok(())
    }
}

impl Choices {
    const fn masks_pointers(self) -> bool {
        self.masks_seven_bits || self.masks_sixteen_bits
    }

    /// Returns the number of bits to mask: the smallest that the machine has and that is not below
    /// `wanted`.
    fn pointer_masking(self, wanted: usize) -> Result<usize, Error> {
        match wanted {
            0 => Ok(0),
            ..=7 if self.masks_seven_bits => Ok(7),
            ..=16 if self.masks_sixteen_bits => Ok(16),
            _ => Err(Error::InvalidParam),
        }
    }
}

/// The error of a feature that is not here.
fn absent(feature: usize) -> Error {
    match feature {
        MISALIGNED_EXC_DELEG
        | LANDING_PAD
        | SHADOW_STACK
        | DOUBLE_TRAP
        | PTE_AD_HW_UPDATING
        | POINTER_MASKING_PMLEN => Error::NotSupported,
        _ => Error::Denied,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Choices = Choices {
        ad_updates: AdUpdates::Chosen,
        masks_seven_bits: true,
        masks_sixteen_bits: true,
    };
    const LOCK: usize = 1;

    #[test]
    fn r74_a_feature_starts_off_and_is_a_field_of_henvcfg() {
        let mut features = FirmwareFeatures::new(ALL);
        let granted = Henvcfg::ADUE | Henvcfg::STCE;
        assert_eq!(features.get(PTE_AD_HW_UPDATING), Ok(0));
        assert_eq!(features.henvcfg(granted), Henvcfg::STCE.bits());
        features.set(PTE_AD_HW_UPDATING, 1, 0).unwrap();
        assert_eq!(features.get(PTE_AD_HW_UPDATING), Ok(1));
        assert_eq!(features.henvcfg(granted), granted.bits());
        features.set(POINTER_MASKING_PMLEN, 7, 0).unwrap();
        assert_eq!(features.henvcfg(granted), granted.bits() | 2 << PMM_SHIFT);
        features.set(POINTER_MASKING_PMLEN, 8, 0).unwrap();
        assert_eq!(features.get(POINTER_MASKING_PMLEN), Ok(16));
        assert_eq!(features.henvcfg(granted), granted.bits() | 3 << PMM_SHIFT);
        features.set(POINTER_MASKING_PMLEN, 0, 0).unwrap();
        features.set(PTE_AD_HW_UPDATING, 0, 0).unwrap();
        assert_eq!(features.henvcfg(granted), Henvcfg::STCE.bits());
    }

    #[test]
    fn r74_a_locked_feature_keeps_its_value() {
        let mut features = FirmwareFeatures::new(ALL);
        features.set(PTE_AD_HW_UPDATING, 1, LOCK).unwrap();
        let again = features.set(PTE_AD_HW_UPDATING, 0, 0);
        assert_eq!(again, Err(Error::DeniedLocked));
        assert_eq!(features.get(PTE_AD_HW_UPDATING), Ok(1));
        // Each feature has a lock of its own.
        features.set(POINTER_MASKING_PMLEN, 7, 0).unwrap();
    }

    #[test]
    fn r74_what_is_not_there_or_not_valid_is_refused() {
        let mut none = FirmwareFeatures::new(Choices::default());
        let mut all = FirmwareFeatures::new(ALL);
        for feature in [PTE_AD_HW_UPDATING, POINTER_MASKING_PMLEN, SHADOW_STACK] {
            assert_eq!(none.get(feature), Err(Error::NotSupported), "{feature}");
            assert_eq!(none.set(feature, 0, 0), Err(Error::NotSupported));
        }
        for feature in [6, 0x4000_0000, 0x8000_0000, 0xffff_ffff] {
            assert_eq!(all.get(feature), Err(Error::Denied), "{feature:#x}");
            assert_eq!(all.set(feature, 0, 0), Err(Error::Denied));
        }
        for (feature, value, flags) in [
            (PTE_AD_HW_UPDATING, 2, 0),
            (PTE_AD_HW_UPDATING, 1, 2),
            (POINTER_MASKING_PMLEN, 17, 0),
            (POINTER_MASKING_PMLEN, usize::MAX, 0),
        ] {
            assert_eq!(all.set(feature, value, flags), Err(Error::InvalidParam));
        }
        assert_eq!(
            all.henvcfg(Henvcfg::all()),
            (Henvcfg::all() - Henvcfg::ADUE).bits()
        );
    }

    #[test]
    fn r74_updates_that_cannot_be_turned_off_stay_on() {
        let mut features = FirmwareFeatures::new(Choices {
            ad_updates: AdUpdates::Always,
            ..Choices::default()
        });
        assert_eq!(features.get(PTE_AD_HW_UPDATING), Ok(1));
        assert_eq!(features.set(PTE_AD_HW_UPDATING, 0, 0), Err(Error::Denied));
        features.set(PTE_AD_HW_UPDATING, 1, 0).unwrap();
        assert_eq!(features.henvcfg(Henvcfg::ADUE), Henvcfg::ADUE.bits());
    }
}
